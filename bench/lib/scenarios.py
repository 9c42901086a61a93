"""terse in situations other than the usual one, each beside the usual one in the same run."""

import http.client
import json
import shutil
import subprocess
import threading
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, ContextManager

import load
from fleet import start_terse
from linkfile import fill
from machine import middle, print_others, print_table
from redirects import ratio
from servers import Failure, Terse, check_redirects, connect, create_in_bulk, request, say
from workload import (
    AGENT,
    SEED,
    make_codes,
    make_targets,
    make_unknown_names,
    power_law,
    write_requests,
    write_visits,
)

CONNECTIONS = 64
WARM_UP_SECONDS = 3
# terse counts the memory of a cached link so; for setting its cache to a share of all links.
CACHED_LINK_BYTES = 340
CACHE_SHARE = 0.01
# Rows of one request of the import: as many as `terse import` sends.
IMPORT_LEN = 20_000
HEADS = ("situation", "requests/s", "user µs", "system µs", "total µs", "÷ usual", "p50 ms", "p99 ms", "p99.9 ms")
VARIABLES = {
    "base": {},
    "clicks off": {"TERSE_CLICKS": "off"},
    "limits": {
        "TERSE_RATE_LIMITS": "on",
        "TERSE_REDIRECTS_PER_MINUTE": "1000000000",
    },
    "behind a proxy": {"TERSE_TRUSTED_PROXIES": "127.0.0.0/8"},
    "writing": {},
    "sweeping": {"TERSE_SWEEP_INTERVAL_S": "1", "TERSE_SWEEP_GRACE_S": "0"},
}


@contextmanager
def nothing():
    yield lambda: ""


@dataclass
class Scenario:
    """A row of the table."""

    name: str
    server: Terse
    # Plays for so many seconds.
    play: Callable[[int], load.Played]
    # What goes on beside it; gives a function that says how much of it there was.
    beside: Callable[[], ContextManager] = nothing


def run(options, binaries, folder):
    with ExitStack() as running:
        scenarios = prepare(options, binaries, folder, running)
        for scenario in scenarios:
            say(f"warming up: {scenario.name}")
            scenario.play(min(WARM_UP_SECONDS, options.seconds))
        for scenario in scenarios:
            scenario.server.wait_for_clicks()
        runs = {scenario.name: [] for scenario in scenarios}
        beside = {}
        for round_number in range(1, options.rounds + 1):
            for scenario in scenarios:
                own, beside[scenario.name] = measure(scenario, options.seconds)
                runs[scenario.name].append(own)
                say(
                    f"round {round_number}/{options.rounds}, {scenario.name}: "
                    f"{own.requests_per_second:,.0f}/s, {own.total_us:.1f} µs"
                )
    report(options, runs, beside)


def measure(scenario, seconds):
    """One measurement, and what went on beside it, which ends with it rather than when the last click is committed."""
    with ExitStack() as beside:
        told = beside.enter_context(scenario.beside())
        notes = []

        def play():
            played = scenario.play(seconds)
            notes.append(told())
            beside.close()
            return played

        return load.measure(scenario.server, play), notes[0]


def prepare(options, binaries, folder, running):
    """Starts the servers and makes the lists of requests."""
    cpu = options.client_cpu
    targets = make_targets(options.links)
    servers = {}
    codes = start_terse(VARIABLES, targets, options, binaries, folder, running, servers)
    base, writing, sweeping = servers["base"], servers["writing"], servers["sweeping"]
    proxied = servers["behind a proxy"]
    check_redirects(base.port, dict(list(zip(codes, targets))[:100]))

    permanent = Terse(binaries["terse"], folder / "permanent-data", cpu=options.server_cpu, workers=1)
    running.enter_context(permanent)
    permanent_codes, _ = create_in_bulk(permanent.port, permanent.admin_key(), targets, redirect_type=301)

    many_codes, cache_mb, uniform = start_uniform(options, binaries, folder, running)
    secure = start_secure(options, binaries, folder, running, Path(base.env["TERSE_DATA_DIR"]), base)

    asked = power_law(codes)
    usual = write_requests(folder / "usual.tsv", asked)
    hot = write_requests(folder / "hot.tsv", asked[:1] * 4)
    unknown = write_requests(folder / "unknown.tsv", make_codes(len(asked), SEED + 1))
    names = write_requests(folder / "names.tsv", make_unknown_names(len(asked)))
    visits = write_visits(folder / "visits.tsv", asked)
    moved = write_requests(folder / "moved.tsv", power_law(permanent_codes))
    many = write_requests(folder / "many.tsv", many_codes)
    paths = folder / "paths.txt"
    paths.write_text("".join(f"/{code}\n" for code in asked))
    key = writing.admin_key()
    words = iter(range(1_000_000))

    def wrk(server, file, *args, **flags):
        return lambda seconds: load.wrk(
            server.port, "redirects.lua", file, *args, connections=CONNECTIONS, seconds=seconds, cpu=cpu, **flags
        )

    def mixed(seconds):
        return load.wrk(
            writing.port, "mixed.lua", usual, key, str(next(words)), connections=CONNECTIONS, seconds=seconds, cpu=cpu
        )

    def tls(*flags):
        url = f"https://127.0.0.1:{secure.port}"
        header = ("-H", f"user-agent: {AGENT}")
        return lambda seconds: load.h2load(
            url, paths, folder / "h2load.log", *flags, *header, connections=CONNECTIONS, seconds=seconds, cpu=cpu
        )

    expired = ExpiredLinks(sweeping, sweeping.admin_key(), options.links)
    return [
        Scenario("usual: all in cache, keep-alive, clicks on, 302", base, wrk(base, usual)),
        Scenario("one hot code", base, wrk(base, hot)),
        Scenario(
            f"uniform over {options.uniform_links:,} links, cache of {cache_mb} MiB", uniform, wrk(uniform, many)
        ),
        Scenario("unknown codes, never issued (404)", base, wrk(base, unknown, all_refused=True)),
        Scenario("unknown names, more than are remembered (404)", base, wrk(base, names, all_refused=True)),
        Scenario("many agents, referrers and addresses", proxied, wrk(proxied, visits)),
        Scenario("301", permanent, wrk(permanent, moved)),
        Scenario("a connection for each request", base, wrk(base, usual, "Connection: close")),
        Scenario("TLS, HTTP/2", secure, tls()),
        Scenario("TLS, HTTP/1.1", secure, tls("--h1")),
        Scenario("95 % redirects, 5 % creates", writing, mixed),
        Scenario("during a bulk import", writing, wrk(writing, usual), lambda: importing(writing, key)),
        Scenario("while expired links are swept", sweeping, wrk(sweeping, usual), expired.being_swept),
        Scenario("clicks off", servers["clicks off"], wrk(servers["clicks off"], usual)),
        Scenario("rate limits on, none reached", servers["limits"], wrk(servers["limits"], usual)),
    ]


def start_uniform(options, binaries, folder, running):
    """terse over so many links that its cache holds a small share; codes in no order."""
    data, codes_file = folder / "uniform-data", folder / "uniform.codes"
    fill(binaries, data, options.uniform_links, codes_file)
    cache_mb = max(1, round(options.uniform_links * CACHE_SHARE * CACHED_LINK_BYTES / 2**20))
    server = Terse(
        binaries["terse"], data, cpu=options.server_cpu, workers=1, variables={"TERSE_CACHE_MB": str(cache_mb)}
    )
    running.enter_context(server)
    return codes_file.read_text().split(), cache_mb, server


def start_secure(options, binaries, folder, running, data, base):
    """terse with TLS, on a copy of the base's folder."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    argv = ["openssl", "req", "-x509", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    done = subprocess.run([*argv, "-keyout", key, "-out", cert], capture_output=True, text=True)
    if done.returncode != 0:
        raise Failure(f"openssl makes no certificate: {done.stderr}")
    base.stop()
    shutil.copytree(data, folder / "secure-data")
    base.start()
    variables = {"TERSE_TLS_CERT": str(cert), "TERSE_TLS_KEY": str(key)}
    server = Terse(
        binaries["terse"], folder / "secure-data", cpu=options.server_cpu, workers=1, variables=variables
    )
    return running.enter_context(server)


@contextmanager
def importing(server, key):
    """Sends one bulk request after another, as `terse import` does."""
    body = "".join(json.dumps({"long_url": target}) + "\n" for target in make_targets(IMPORT_LEN)).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
    end, created, failed = threading.Event(), [], []

    def work():
        connection = connect(server.port)
        try:
            while not end.is_set():
                status, _, answer = request(connection, "POST", "/api/v1/urls/bulk", body, headers)
                if status != 200 or answer.count(b'"status":201') != IMPORT_LEN:
                    raise Failure(f"a bulk request beside the measurement was answered with {status}")
                created.append(IMPORT_LEN)
        except (Failure, OSError, http.client.HTTPException) as failure:
            failed.append(failure)

    began = time.monotonic()
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield lambda: f"{sum(created) / (time.monotonic() - began):,.0f} links/s imported meanwhile"
    finally:
        end.set()
        thread.join()
    if failed:
        raise failed[0]


class ExpiredLinks:
    """Links that have expired when a measurement begins, for the sweeper to find in its course."""

    def __init__(self, server, key, count):
        self.server = server
        self.key = key
        self.targets = make_targets(count)

    @contextmanager
    def being_swept(self):
        create_in_bulk(self.server.port, self.key, self.targets, expires_in=1)
        time.sleep(1)
        before = self.server.metrics()["terse_links_swept_total"]

        def told():
            swept = self.server.metrics()["terse_links_swept_total"] - before
            if not swept:
                raise Failure("nothing was swept during the measurement")
            return f"{swept:,.0f} links swept meanwhile"

        yield told


def report(options, runs, beside):
    base = next(iter(runs.values()))
    rows = []
    for name, own in runs.items():
        rows.append([
            name + (f" ({beside[name]})" if beside[name] else ""),
            middle(own, "requests_per_second", 0),
            middle(own, "user_us", 1),
            middle(own, "system_us", 1),
            middle(own, "total_us", 1),
            ratio(own, base),
            middle(own, "p50_ms", 3),
            middle(own, "p99_ms", 3),
            middle(own, "p999_ms", 3),
        ])
    print_table(f"Situations, terse, {CONNECTIONS} connections", HEADS, rows)
    print(f"\nMedians of {options.rounds} interleaved rounds of {options.seconds} s.")
    print_others([run for own in runs.values() for run in own])
