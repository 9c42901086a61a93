"""Redirects: terse beside nginx and the floor programs, at several numbers of connections."""

from contextlib import ExitStack
from statistics import median

import load
from fleet import VARIABLES, WHAT, start_servers
from machine import middle, print_others, print_table
from servers import say
from workload import power_law, write_requests

WARM_UP_SECONDS = 3
WARM_UP_CONNECTIONS = 64
HEADS = (
    "server",
    "requests/s",
    "user µs",
    "system µs",
    "total µs",
    "of it pipeline",
    "÷ nginx",
    "÷ epoll",
    "÷ io_uring",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "server busy",
    "wrk busy",
    "wrk µs",
)


def run(options, binaries, folder):
    with ExitStack() as running:
        servers, codes = start_servers(options.servers, options, binaries, folder, running)
        if options.one_code:
            # The client needs no script to ask always the same: it costs so little that the server is the limit.
            ask, path = ["report.lua"], f"/{codes[0]}"
        else:
            ask, path = ["redirects.lua", write_requests(folder / "requests.tsv", power_law(codes))], ""
        report(options, measure(options, servers, ask, path))


def measure(options, servers, ask, path):
    """{connections: {server: [Run, one a round]}}; each round measures all, so that a slow minute hits all alike."""

    def once(server, connections, seconds):
        flags = {"connections": connections, "seconds": seconds, "cpu": options.client_cpu, "path": path}
        return load.measure(server, lambda: load.wrk(server.port, *ask, **flags))

    for name, server in servers.items():
        say(f"warming up {name}")
        once(server, WARM_UP_CONNECTIONS, min(WARM_UP_SECONDS, options.seconds))
    runs = {connections: {name: [] for name in servers} for connections in options.connections}
    for round_number in range(1, options.rounds + 1):
        for connections in options.connections:
            for name, server in servers.items():
                own = once(server, connections, options.seconds)
                runs[connections][name].append(own)
                say(
                    f"round {round_number}/{options.rounds}, {connections} connections, {name}: "
                    f"{own.requests_per_second:,.0f}/s, {own.total_us:.1f} µs"
                )
    return runs


def report(options, runs):
    for connections, by_server in runs.items():
        rows = []
        for name, own in by_server.items():
            ratios = [ratio(own, by_server.get(other)) for other in ("nginx", "floor-epoll", "floor-uring")]
            rows.append([
                WHAT[name],
                middle(own, "requests_per_second", 0),
                middle(own, "user_us", 1),
                middle(own, "system_us", 1),
                middle(own, "total_us", 1),
                middle(own, "pipeline_us", 2) if name in VARIABLES else "–",
                *ratios,
                middle(own, "p50_ms", 3),
                middle(own, "p99_ms", 3),
                middle(own, "p999_ms", 3),
                f"{median(run.server_busy for run in own):.0%}",
                f"{median(run.client_busy for run in own):.0%}",
                middle(own, "client_us", 1),
            ])
        of_what = "Redirects of one code" if options.one_code else "Redirects"
        print_table(f"{of_what}, {connections} connection{'s' * (connections != 1)}", HEADS, rows)
        print_clicks(by_server)
        if {"terse", "terse-hyper"} <= set(by_server):
            print(f"\nThrough io_uring against hyper: {ratio(by_server['terse'], by_server['terse-hyper'])} of total µs.")
    print(f"\nMedians of {options.rounds} interleaved rounds of {options.seconds} s;", end=" ")
    print("ratios are medians of the rounds' own ratios of total µs.")
    print_others([run for by_server in runs.values() for own in by_server.values() for run in own])


def print_clicks(by_server):
    """What counting costs: on against off, round by round."""
    if not {"terse", "terse-off"} <= set(by_server):
        return
    pairs = list(zip(by_server["terse"], by_server["terse-off"]))
    throughput = median(on.requests_per_second / off.requests_per_second for on, off in pairs)
    cost = median(on.total_us - off.total_us for on, off in pairs)
    print(f"\nClicks on against off: {throughput:.2f} of the throughput, {cost:.2f} µs a redirect, none dropped.")


def ratio(own, other):
    """The median of the ratios round by round, which is steadier than the ratio of the medians."""
    if other is None:
        return "–"
    return f"{median(a.total_us / b.total_us for a, b in zip(own, other)):.2f}"
