"""Builds and installs what a run needs."""

import json
import os
import shutil
import subprocess

from machine import ROOT
from servers import Failure, say

OHA = "1.16.0"
PACKAGES = {"h2load": "nghttp2-client"}
# Where Debian keeps nginx, which only root looks into by itself.
os.environ["PATH"] += ":/usr/sbin"


def install(programs):
    """Gets missing programs through apt."""
    missing = [PACKAGES.get(program, program) for program in programs if not shutil.which(program)]
    if missing and shell('apt_install "$@"', *missing).returncode != 0:
        raise Failure(f"apt cannot install {' and '.join(missing)}; without it nothing is measured")


def oha():
    """The path of oha, an open-loop client that corrects for coordinated omission; built once, which takes minutes."""
    done = shell('cargo_tool "$@"', "oha", OHA, "--features", "rustls")
    if done.returncode != 0:
        raise Failure("cargo cannot install oha; without it latency is not measured")
    return done.stdout.strip()


def shell(script, *args):
    return subprocess.run(
        ["bash", "-c", f"set -e; . scripts/lib/tools.sh; {script}", "bench", *args],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


def build(packages, flags=(), env=None):
    """Builds the programs of these packages and gives the path of each by its name."""
    binaries = {}
    for package in sorted(packages):
        say(f"building {package}")
        done = subprocess.run(
            ["cargo", "build", "--release", "-p", package, "--bins", "--message-format=json-render-diagnostics", *flags],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode != 0:
            raise Failure(f"cargo build --release -p {package} ended with {done.returncode}")
        for message in map(json.loads, done.stdout.splitlines()):
            if message.get("executable"):
                binaries[message["target"]["name"].replace("_", "-")] = message["executable"]
    return binaries
