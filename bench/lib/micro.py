"""Micro-benchmarks: one step of the way each, by criterion."""

import json
import subprocess

from machine import ROOT, print_table
from servers import Failure, say


def run(options, binaries, folder):
    say("building and running the micro-benchmarks")
    # Where criterion leaves its figures.
    environment = ["env", f"CRITERION_HOME={folder}"]
    seconds = str(options.seconds)
    argv = ["cargo", "bench", "-p", "terse-bench", "--bench", "micro", "--"]
    argv += ["--noplot", "--measurement-time", seconds, "--warm-up-time", "1"]
    done = subprocess.run([*environment, *argv], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        raise Failure(f"cargo bench ended with {done.returncode}: {done.stdout[-3000:]}")
    rows = []
    for file in sorted(folder.rglob("new/estimates.json")):
        name = json.loads((file.parent / "benchmark.json").read_text())["full_id"]
        found = json.loads(file.read_text())["median"]
        interval = found["confidence_interval"]
        times = (found["point_estimate"], interval["lower_bound"], interval["upper_bound"])
        rows.append([name, *(f"{time:,.1f}" for time in times)])
    print_table("One step, one core", ("step", "median ns", "95 % from", "to"), rows)
