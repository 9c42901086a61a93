"""Fills data folders with more links than one would send over HTTP."""

import json
import subprocess

from servers import Failure, say


def fill(binaries, data, add, codes_file, codes_len=150_000):
    """Adds links to a folder, writes some codes of all in it to a file, and gives the seconds that adding took."""
    say(f"adding {add:,} links to {data.name}")
    argv = [binaries["links"], "--data-dir", data, "--add", str(add)]
    argv += ["--codes", codes_file, "--codes-len", str(codes_len)]
    done = subprocess.run([str(arg) for arg in argv], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise Failure(f"the program `links` ended with {done.returncode}")
    return json.loads(done.stdout)["seconds"]
