"""Memory of terse: minute by minute under mixed load, and of connections that do nothing."""

import resource
import socket
import threading
import time
from contextlib import ExitStack
from itertools import cycle

import load
from linkfile import fill
from machine import print_table
from process import rss_anon, slab
from servers import Failure, Terse, request, say
from workload import make_unknown_names, write_requests

# Distinct codes, more than the default cache holds links.
CODES_LEN = 400_000
CONNECTIONS = 32
IDLE_CONNECTIONS = 10_000
# What is asked for fills all of them.
CACHE_MB = (1, 16, 64)
# Of the seconds of one measurement, until each of them was asked for.
FILL_ROUNDS = 4
# The client's own other files.
FILES_SPARE = 100
STATS_PAUSE_SECONDS = 0.2
REQUEST = b"GET /%s HTTP/1.1\r\nHost: localhost\r\n\r\n"


def run(options, binaries, folder):
    data, codes_file = folder / "data", folder / "codes"
    fill(binaries, data, options.uniform_links, codes_file, CODES_LEN)
    codes = codes_file.read_text().split()
    usual = write_requests(folder / "codes.tsv", codes)
    unknown = write_requests(folder / "unknown.tsv", make_unknown_names(CODES_LEN))
    with Terse(binaries["terse"], data, cpu=options.server_cpu, workers=1) as server:
        mixed(options, server, codes, usual, unknown)
        server.wait_for_clicks()
    bound(options, binaries, data, usual, unknown)
    with Terse(binaries["terse"], data, cpu=options.server_cpu, workers=1) as server:
        idle(server, codes)


def mixed(options, server, codes, usual, unknown):
    """Redirects over more links than the cache holds, unknown codes, creates and statistics, all at once."""
    key = server.admin_key()
    asked = cycle(codes)
    rows = [row(server, "start", {}, 0)]
    for minute in range(1, options.minutes + 1):
        loads = {
            "redirects": ("redirects.lua", usual, {}),
            "unknown": ("redirects.lua", unknown, {"all_refused": True}),
            "creates": ("creates.lua", key, {}),
        }
        played, peak = together(options, server, loads, minute, lambda: ask_stats(server, key, next(asked)))
        rows.append(row(server, str(minute), played, peak))
        say(f"minute {minute} of {options.minutes}: {', '.join(rows[-1][1:])}")
    heads = (
        "minute",
        "RssAnon MB",
        "highest in it",
        "cache's own weight MB",
        "links in cache",
        "unknown codes in memory",
        "redirects/s",
        "404/s",
        "creates/s",
        "statistics/s",
    )
    print_table(f"Memory under mixed load, {options.uniform_links:,} links at first", heads, rows)


def together(options, server, loads, minute, ask):
    """Plays all loads at once and asks for statistics meanwhile; gives rates, and the most memory seen."""
    played, failures = {}, []
    end = threading.Event()

    def play(name, script, *args, **flags):
        try:
            played[name] = load.wrk(
                server.port,
                script,
                *args,
                connections=CONNECTIONS,
                seconds=options.minute_seconds,
                cpu=options.client_cpu,
                **flags,
            ).requests_per_second
        except Failure as failure:
            failures.append(failure)

    def keep_asking():
        count, began = 0, time.monotonic()
        try:
            while not end.wait(STATS_PAUSE_SECONDS):
                ask()
                count += 1
        except Failure as failure:
            failures.append(failure)
        played["statistics"] = count / (time.monotonic() - began)

    threads = []
    for name, (script, arg, flags) in loads.items():
        args = (name, script, arg, *([f"minute-{minute}"] if name == "creates" else []))
        threads.append(threading.Thread(target=play, args=args, kwargs=flags))
    asking = threading.Thread(target=keep_asking)
    for thread in [*threads, asking]:
        thread.start()
    peak = 0
    while any(thread.is_alive() for thread in threads):
        peak = max(peak, rss_anon(server.pid))
        time.sleep(0.5)
    end.set()
    asking.join()
    if failures:
        raise failures[0]
    return played, peak


def ask_stats(server, key, code):
    """What a link's page shows."""
    headers = {"Authorization": f"Bearer {key}"}
    status, _, answer = request(server.connect(), "GET", f"/api/v1/urls/{code}/stats", headers=headers)
    if status != 200:
        raise Failure(f"statistics of /{code} are answered with {status}: {answer[:300]!r}")


def row(server, minute, played, peak):
    metrics = server.metrics()
    return [
        minute,
        f"{rss_anon(server.pid) / 1e6:.1f}",
        f"{peak / 1e6:.1f}" if peak else "–",
        f"{metrics['terse_cache_bytes'] / 1e6:.1f}",
        f"{metrics['terse_cache_links']:,.0f}",
        f"{metrics['terse_cache_missing']:,.0f}",
        *(f"{played[name]:,.0f}" if played else "–" for name in ("redirects", "unknown", "creates")),
        f"{played['statistics']:.1f}" if played else "–",
    ]


def bound(options, binaries, data, usual, unknown):
    """What caches of several sizes take of the server's own memory, filled, scanned and filled again."""
    rows, least = [], None
    for cache_mb in CACHE_MB:
        variables = {"TERSE_CACHE_MB": str(cache_mb), "TERSE_CLICKS": "off"}
        with Terse(binaries["terse"], data, cpu=options.server_cpu, workers=1, variables=variables) as server:
            peak = 0
            for file, flags in ((usual, {}), (unknown, {"all_refused": True}), (usual, {})):
                flags |= {"connections": CONNECTIONS, "seconds": FILL_ROUNDS * options.seconds, "cpu": options.client_cpu}
                load.wrk(server.port, "redirects.lua", file, **flags)
                peak = max(peak, rss_anon(server.pid))
            metrics = server.metrics()
        least = least or peak
        may = (cache_mb - CACHE_MB[0]) * 2**20
        rows.append([
            f"{cache_mb}",
            f"{metrics['terse_cache_links']:,.0f}",
            f"{metrics['terse_cache_bytes'] / 2**20:.1f}",
            f"{peak / 2**20:.1f}",
            f"{(peak - least) / 2**20:.1f}" if may else "–",
            f"{(peak - least) / may:.2f}" if may else "–",
        ])
        say(f"cache of {', '.join(rows[-1])}")
    heads = ("cache_mb", "links in it", "its own weight MiB", "RssAnon MiB", "above the first", "÷ what it may be")
    print_table("The bound of the cache, clicks off", heads, rows)


def idle(server, codes):
    """Opens connections that have made one request and keep the connection: what each takes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(IDLE_CONNECTIONS, hard - FILES_SPARE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + FILES_SPARE), hard))
    with ExitStack() as open_connections:
        ask_once(server, codes[0], open_connections)
        before, slab_before = rss_anon(server.pid), slab()
        for _ in range(count):
            ask_once(server, codes[0], open_connections)
        after, slab_after = rss_anon(server.pid), slab()
    print_table(
        "Idle connections",
        ("connections", "RssAnon before, MB", "after, MB", "bytes each", "kernel's slab, both ends, bytes each"),
        [[
            f"{count:,}",
            f"{before / 1e6:.1f}",
            f"{after / 1e6:.1f}",
            f"{(after - before) / count:,.0f}",
            f"{(slab_after - slab_before) / count:,.0f}",
        ]],
    )
    if count < IDLE_CONNECTIONS:
        say(f"only {count:,} files may be open here: raise the limit (ulimit -n) for {IDLE_CONNECTIONS:,} connections")


def ask_once(server, code, open_connections):
    connection = open_connections.enter_context(socket.create_connection(("127.0.0.1", server.port)))
    connection.sendall(REQUEST % code.encode())
    if not connection.recv(4096).startswith(b"HTTP/1.1 302"):
        raise Failure(f"/{code} is not answered with a redirect")
