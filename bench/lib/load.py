"""Drives a server with wrk and says what each answer cost it."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from servers import Failure, Terse

SCRIPTS = Path(__file__).resolve().parent / "wrk"
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# What a server still does for the requests of a run (flush a log, work off a queue) is counted as theirs.
SETTLE_SECONDS = 0.5


@dataclass
class Run:
    """One measurement. Times of the processor are microseconds of the server's processes per request."""

    requests_per_second: float
    user_us: float
    system_us: float
    # Of both together, what threads took that answer no requests: terse's pipeline of clicks.
    pipeline_us: float
    p50_ms: float
    p99_ms: float
    server_busy: float
    client_busy: float
    foreign_busy: float

    @property
    def total_us(self):
        return self.user_us + self.system_us


@dataclass
class Played:
    """What wrk says of its run, and what it cost itself from its start to its end."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    cpu_seconds: float
    wall_seconds: float


def wrk(port, script, *args, connections, seconds, cpu=None):
    """Runs wrk once. One failed request fails it all."""

    def pin():
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    env = os.environ | {"LUA_PATH": f"{SCRIPTS}/?.lua;;"}
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", SCRIPTS / script]
    argv += [f"http://127.0.0.1:{port}", "--", *args]
    began, before = time.monotonic(), os.times()
    done = subprocess.run(argv, env=env, capture_output=True, text=True, preexec_fn=pin)
    after, wall_seconds = os.times(), time.monotonic() - began
    result = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    if done.returncode != 0 or not result:
        raise Failure(f"wrk ended with {done.returncode}: {done.stdout}{done.stderr}")
    requests, duration_us, errors, p50_us, p99_us = map(int, result[0])
    if errors or not requests:
        raise Failure(f"wrk counted {errors} errors in {requests} requests: {done.stdout}")
    own_seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return Played(requests, duration_us / 1e6, p50_us / 1e3, p99_us / 1e3, own_seconds, wall_seconds)


def measure(server, requests_file, *, connections, seconds, cpu):
    """Plays the list of requests against one server, and waits until it has done all that they make it do."""
    began, before, machine_before = time.monotonic(), cpu_seconds(server.pid), machine_busy_seconds()
    pipeline_before = pipeline_seconds(server.pid)
    played = wrk(
        server.port, "redirects.lua", requests_file, connections=connections, seconds=seconds, cpu=cpu
    )
    time.sleep(SETTLE_SECONDS)
    if isinstance(server, Terse):
        server.wait_for_clicks()
    pipeline = pipeline_seconds(server.pid) - pipeline_before
    after, machine_after, ended = cpu_seconds(server.pid), machine_busy_seconds(), time.monotonic()
    user, system = after[0] - before[0], after[1] - before[1]
    foreign = machine_after - machine_before - user - system - played.cpu_seconds
    return Run(
        requests_per_second=played.requests / played.seconds,
        user_us=user / played.requests * 1e6,
        system_us=system / played.requests * 1e6,
        pipeline_us=pipeline / played.requests * 1e6,
        p50_ms=played.p50_ms,
        p99_ms=played.p99_ms,
        server_busy=(user + system) / played.seconds,
        client_busy=played.cpu_seconds / played.wall_seconds,
        foreign_busy=max(0.0, foreign / (ended - began)),
    )


def cpu_seconds(pid):
    """User and system seconds of all threads of a process and of its children (nginx's work is in a child)."""
    user = system = 0
    for process in [pid, *children(pid)]:
        fields = stat_fields(process)
        user += int(fields[11])
        system += int(fields[12])
    return user / TICKS_PER_SECOND, system / TICKS_PER_SECOND


def pipeline_seconds(pid):
    """Seconds of all threads of a process that are neither its first one nor a worker."""
    seconds = 0.0
    for task in Path(f"/proc/{pid}/task").iterdir():
        name = (task / "comm").read_text().strip()
        if task.name != str(pid) and not name.startswith("worker"):
            fields = stat_fields(f"{pid}/task/{task.name}")
            seconds += (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND
    return seconds


def children(pid):
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if int(stat_fields(folder.name)[1]) == pid:
                found.append(int(folder.name))
        except OSError:
            # It ended while the list was read.
            continue
    return found


def stat_fields(pid):
    """The fields of /proc/PID/stat from the state on; the name before it may hold spaces and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def machine_busy_seconds():
    """Seconds that all processors together have spent on anything, or waited for a host that gave them to another."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = map(
        int, Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_SECOND
