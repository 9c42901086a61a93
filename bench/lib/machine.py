"""The machine that a run is made on, and how its figures are put on paper."""

import os
import platform
import subprocess
import time
from pathlib import Path
from statistics import median

from servers import say

ROOT = Path(__file__).resolve().parents[2]
# Above this share of a processor, what others did meanwhile shows in the figures.
FOREIGN_MAX = 0.1


def describe(options, programs):
    """Says on which machine and with which programs, because figures mean little without."""
    if file_system(options.dir) in ("tmpfs", "ramfs"):
        say(f"NOT A DISK: {options.dir} is in memory, so that creates are not durable; choose another with --dir")
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = models[0].split(":")[1].strip() if models else platform.machine()
    print(f"{len(os.sched_getaffinity(0))} × {cpu}, Linux {platform.release()}, {first_line('rustc', '--version')},")
    versions = {
        "wrk": lambda: first_line("wrk", "--version").split(" [")[0],
        "nginx": lambda: first_line("nginx", "-v").replace("nginx version: ", ""),
        "h2load": lambda: first_line("h2load", "--version"),
    }
    commit = first_line("git", "-C", ROOT, "describe", "--always", "--dirty", "--abbrev=10")
    tools = [version() for program, version in versions.items() if program in programs]
    print(f"{', '.join([*tools, f'commit {commit}'])}, {time.strftime('%Y-%m-%d')}.")
    print(f"Server on processor {options.server_cpu}, client on {options.client_cpu}, unless said otherwise.")


def first_line(*argv):
    done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout.splitlines()[0] if done.returncode in (0, 1) and done.stdout else "unknown"


def file_system(folder):
    return subprocess.run(["stat", "-f", "-c", "%T", folder], capture_output=True, text=True).stdout.strip()


def syncs_per_second(folder):
    """What the disk allows one at a time: the measure for what committing in groups gains."""
    count, block = 0, b"x" * 4096
    with (folder / "sync").open("wb", buffering=0) as file:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            file.write(block)
            os.fdatasync(file.fileno())
            count += 1
    (folder / "sync").unlink()
    return count


def forget_files(folder):
    """Writes the files below a folder to disk and drops them from the system's memory."""
    for path in Path(folder).rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def print_table(title, heads, rows):
    print(f"\n### {title}\n")
    print(f"| {' | '.join(heads)} |")
    print(f"|---{'|--:' * (len(heads) - 1)}|")
    for row in rows:
        print(f"| {' | '.join(row)} |")


def middle(runs, field, digits):
    return f"{median(getattr(run, field) for run in runs):,.{digits}f}"


def print_others(runs):
    """What else went on: the reader's measure for how far to trust the figures."""
    foreign = sorted(run.foreign_busy for run in runs)
    print("Everything else on the machine, its host included, took", end=" ")
    print(f"{median(foreign):.0%} of one processor in the middle measurement, {foreign[-1]:.0%} in the worst.")
    if median(foreign) > FOREIGN_MAX:
        say("NOT A QUIET MACHINE: other programs ran at the same time; repeat before you quote this")
