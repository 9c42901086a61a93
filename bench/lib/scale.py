"""How terse does with many links: the same folder, grown from size to size."""

import json
import socket
import time
from contextlib import closing
from statistics import median
from urllib.parse import quote

import load
from linkfile import fill
from machine import forget_files, print_table
from process import precise_cpu_seconds, rss_anon
from servers import Failure, Terse, request, say
from workload import write_requests

# Distinct codes, more than the default cache holds links.
CODES_LEN = 400_000
COLD_LEN = 2_000
WARM_LEN = 20_000
# Seconds after which a cache that still grows is taken as it is.
FILL_SECONDS_MAX = 60
SEARCH_SECONDS_MAX = 60
ASKED = 7
HEADS = (
    "links",
    "load, links/s",
    "bytes a link",
    "first redirect, cold ms",
    "warm ms",
    "cold redirect µs",
    "p50 ms",
    "p99 ms",
    "miss µs",
    "p50 ms",
    "p99 ms",
    "in cache",
    "RssAnon MB",
    "list ms",
    "search, a page ms",
    "search, all s",
)


def run(options, binaries, folder):
    data, codes_file = folder / "data", folder / "codes"
    rows, links = [], 0
    for size in sorted(options.sizes):
        added, links = size - links, size
        seconds = fill(binaries, data, added, codes_file, CODES_LEN)
        codes = codes_file.read_text().split()
        rows.append([f"{size:,}", f"{added / seconds:,.0f}", *measure(options, binaries, folder, size, codes)])
        say(f"{size:,} links: {', '.join(rows[-1][1:])}")
    print_table("Many links", HEADS, rows)
    print("\nOne folder that grows: the rate is that of the links added last. µs are processor time of the server.")


def measure(options, binaries, folder, size, codes):
    data = folder / "data"
    bytes_a_link = sum(file.stat().st_size for file in data.glob("terse.db*")) / size
    server = Terse(binaries["terse"], data, cpu=options.server_cpu, workers=1)
    # Codes that were not asked for before are in no cache of terse, and each is asked for once.
    fresh = iter(codes)
    forget_files(data)
    cold_ms = first_redirect(server, next(fresh))
    try:
        forget_files(data)
        cold = one_by_one(server, take(fresh, min(COLD_LEN, len(codes) // 4)))
        key = server.cli("keys", "create", "--name", "bench", "--tier", "unlimited").strip()
        server.stop()
        read_files(data)
        warm_ms = first_redirect(server, next(fresh))
        warm = one_by_one(server, take(fresh, min(WARM_LEN, len(codes) // 4)))
        cached = fill_cache(options, server, write_requests(folder / "codes.tsv", codes))
        memory = rss_anon(server.pid) / 1e6
        listing = asks(server, key, "?limit=50")
        page = asks(server, key, f"?limit=50&q={quote('no link holds this')}")
        search = search_all(server, key, "no link holds this")
        server.stop()
    finally:
        server.kill()
    return [
        f"{bytes_a_link:.0f}",
        f"{cold_ms:.0f}",
        f"{warm_ms:.0f}",
        *cold,
        *warm,
        f"{cached:,.0f}",
        f"{memory:.0f}",
        f"{listing:.1f}",
        f"{page:.1f}",
        search,
    ]


def take(iterator, count):
    return [next(iterator) for _ in range(count)]


def first_redirect(server, code):
    """Milliseconds from the start of the process to the first redirect."""
    began = time.monotonic()
    server.start()
    status, _, _ = request(server.connect(), "GET", f"/{code}")
    if status != 302:
        raise Failure(f"/{code} answers {status}")
    return (time.monotonic() - began) * 1e3


def one_by_one(server, codes):
    """Processor time of the server per redirect in µs, and p50 and p99 in ms, with one request after another."""
    times, before = [], precise_cpu_seconds(server.pid)
    with closing(socket.create_connection(("127.0.0.1", server.port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for code in codes:
            began = time.perf_counter()
            connection.sendall(f"GET /{code} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            answer = connection.recv(65536)
            times.append(time.perf_counter() - began)
            # A redirect has no body, so that its head is all of it.
            if not answer.startswith(b"HTTP/1.1 302") or not answer.endswith(b"\r\n\r\n"):
                raise Failure(f"/{code} is answered with {answer[:200]!r}")
    cpu = precise_cpu_seconds(server.pid) - before
    times.sort()
    return [
        f"{cpu / len(codes) * 1e6:.0f}",
        f"{times[len(times) // 2] * 1e3:.2f}",
        f"{times[len(times) * 99 // 100] * 1e3:.2f}",
    ]


def read_files(folder):
    """Brings the store into the system's memory, as far as it has room."""
    for path in folder.glob("terse.db*"):
        with path.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass


def fill_cache(options, server, file):
    """Asks for one code after the other until the cache of links grows no more; gives how many it holds."""
    links, end = -1.0, time.monotonic() + FILL_SECONDS_MAX
    while True:
        load.wrk(
            server.port, "redirects.lua", file, connections=64, seconds=options.seconds, cpu=options.client_cpu
        )
        now = server.metrics()["terse_cache_links"]
        # At its bound it goes up and down a little.
        if now < links * 1.02 or time.monotonic() > end:
            server.wait_for_clicks()
            return now
        links = now


def asks(server, key, query):
    """Milliseconds of a call of the API, the median of several."""
    connection = server.connect()
    times = []
    for _ in range(ASKED):
        began = time.monotonic()
        ask(connection, key, query)
        times.append((time.monotonic() - began) * 1e3)
    return median(times)


def search_all(server, key, text):
    """Seconds of a search from page to page through all links, or that it takes longer than one would wait."""
    connection, cursor, began = server.connect(), "", time.monotonic()
    while True:
        found = ask(connection, key, f"?limit=50&q={quote(text)}{cursor}")
        seconds = time.monotonic() - began
        if not found.get("next_cursor"):
            return f"{seconds:.2f}"
        if seconds > SEARCH_SECONDS_MAX:
            return f"> {SEARCH_SECONDS_MAX}"
        cursor = f"&cursor={found['next_cursor']}"


def ask(connection, key, query):
    status, _, answer = request(
        connection, "GET", f"/api/v1/urls{query}", headers={"Authorization": f"Bearer {key}"}
    )
    if status != 200:
        raise Failure(f"the list {query} is answered with {status}: {answer[:300]!r}")
    return json.loads(answer)
