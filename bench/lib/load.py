"""Drives a server with wrk or h2load and says what each answer cost it."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from process import cpu_seconds, machine_busy_seconds, pipeline_seconds
from servers import Failure, Terse
from workload import AGENT

SCRIPTS = Path(__file__).resolve().parent.parent / "wrk"
# What a server still does for the requests of a run (flush a log, work off a queue) is counted as theirs.
SETTLE_SECONDS = 0.5


@dataclass
class Run:
    """One measurement. Times of the processor are microseconds per request, the client's aside of the server's."""

    requests_per_second: float
    user_us: float
    system_us: float
    # Of both together, what threads took that answer no requests: terse's pipeline of clicks.
    pipeline_us: float
    client_us: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    server_busy: float
    client_busy: float
    foreign_busy: float

    @property
    def total_us(self):
        return self.user_us + self.system_us


@dataclass
class Played:
    """What a client says of its run, and what it cost itself from its start to its end."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    p999_ms: float
    cpu_seconds: float
    wall_seconds: float

    @property
    def requests_per_second(self):
        return self.requests / self.seconds


def wrk(port, script, *args, connections, seconds, cpu=None, all_refused=False, path=""):
    """Runs wrk once. One failed request fails it all; with `all_refused`, one that does not."""
    env = os.environ | {"LUA_PATH": f"{SCRIPTS}/?.lua;;"}
    argv = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "-s", SCRIPTS / script, "-H", f"User-Agent: {AGENT}"]
    argv += [f"http://127.0.0.1:{port}{path}", "--", *args]
    output, own_seconds, wall_seconds = run_client(argv, cpu, env=env)
    result = [line.split()[1:] for line in output.splitlines() if line.startswith("RESULT ")]
    if not result:
        raise Failure(f"wrk gave no result: {output}")
    requests, duration_us, errors, refused, p50_us, p99_us, p999_us = map(int, result[0])
    if errors or not requests or refused != (requests if all_refused else 0):
        raise Failure(f"wrk counted {errors} errors and {refused} refusals in {requests} requests: {output}")
    return Played(
        requests, duration_us / 1e6, p50_us / 1e3, p99_us / 1e3, p999_us / 1e3, own_seconds, wall_seconds
    )


def h2load(url, paths_file, log, *flags, connections, seconds, cpu):
    """Runs h2load once over HTTPS; every answer must be a redirect."""
    log.unlink(missing_ok=True)
    argv = ["h2load", "-t1", f"-c{connections}", "-m1", f"-D{seconds}", "-i", paths_file, "--log-file", log]
    output, own_seconds, wall_seconds = run_client([*argv, *flags, "-B", url], cpu)
    # Start, status and microseconds of each request that was answered.
    lines = [line.split() for line in log.read_text().splitlines()]
    log.unlink()
    wrong = [line for line in lines if line[1] != "302"]
    if wrong or not lines:
        raise Failure(f"h2load had {len(wrong)} wrong answers in {len(lines)}: {output}")
    times = sorted(int(line[2]) / 1e3 for line in lines)
    middles = [times[min(len(times) - 1, int(len(times) * part))] for part in (0.5, 0.99, 0.999)]
    return Played(len(times), seconds, *middles, own_seconds, wall_seconds)


def run_client(argv, cpu, env=None):
    """The output of a client on one processor, the seconds of processor that it took, and those by the clock."""

    def pin():
        if cpu is not None:
            os.sched_setaffinity(0, {cpu})

    began = time.monotonic()
    with subprocess.Popen(
        argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=pin
    ) as client:
        try:
            output = client.stdout.read()
            # Its own use, whatever other children end meanwhile.
            _, status, usage = os.wait4(client.pid, 0)
        except BaseException:
            client.kill()
            raise
        client.returncode = os.waitstatus_to_exitcode(status)
    if client.returncode != 0:
        raise Failure(f"{argv[0]} ended with {client.returncode}: {output}")
    return output, usage.ru_utime + usage.ru_stime, time.monotonic() - began


def measure(server, play):
    """Plays requests against one server, and waits until it has done all that they make it do."""
    began, before, machine_before = time.monotonic(), cpu_seconds(server.pid), machine_busy_seconds()
    pipeline_before = pipeline_seconds(server.pid)
    played = play()
    time.sleep(SETTLE_SECONDS)
    if isinstance(server, Terse):
        server.wait_for_clicks()
    pipeline = pipeline_seconds(server.pid) - pipeline_before
    after, machine_after, ended = cpu_seconds(server.pid), machine_busy_seconds(), time.monotonic()
    user, system = after[0] - before[0], after[1] - before[1]
    foreign = machine_after - machine_before - user - system - played.cpu_seconds
    return Run(
        requests_per_second=played.requests_per_second,
        user_us=user / played.requests * 1e6,
        system_us=system / played.requests * 1e6,
        pipeline_us=pipeline / played.requests * 1e6,
        client_us=played.cpu_seconds / played.requests * 1e6,
        p50_ms=played.p50_ms,
        p99_ms=played.p99_ms,
        p999_ms=played.p999_ms,
        server_busy=(user + system) / played.seconds,
        client_busy=played.cpu_seconds / played.wall_seconds,
        foreign_busy=max(0.0, foreign / (ended - began)),
    )
