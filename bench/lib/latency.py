"""Latency at fixed rates, from an open-loop client that corrects for coordinated omission."""

import json
from contextlib import ExitStack
from statistics import median

import load
from fleet import WHAT, start_servers
from machine import print_table
from servers import Failure, say
from tools import oha
from workload import AGENT, power_law

CONNECTIONS = 128
SERVERS = ("floor-epoll", "floor-uring", "nginx", "terse", "terse-hyper")
# Of what the server and oha reach together without a fixed rate.
SHARE_OF_MAXIMUM = 0.8
# A run that sends fewer than this share of what it was asked to says nothing.
REACHED_MIN = 0.98


def run(options, binaries, folder):
    client = oha()
    with ExitStack() as running:
        names = [name for name in options.servers if name in SERVERS]
        servers, codes = start_servers(names, options, binaries, folder, running)
        codes = power_law(codes)
        figures, maxima = {}, {}
        for name, server in servers.items():
            urls = folder / f"{name}.urls"
            urls.write_text("".join(f"{server.url}/{code}\n" for code in codes))
            maxima[name] = ask(client, urls, options, None)["rate"]
            say(f"{name} and oha reach {maxima[name]:,.0f}/s")
        for round_number in range(1, options.rounds + 1):
            for asked in [*options.rates, None]:
                for name in servers:
                    rate = asked or int(maxima[name] * SHARE_OF_MAXIMUM)
                    got = ask(client, folder / f"{name}.urls", options, rate)
                    figures.setdefault((asked, name), []).append(got | {"asked": rate})
                    say(f"round {round_number}/{options.rounds}, {rate:,}/s, {name}: p99 {got['p99']:.2f} ms")
    report(options, figures)


def ask(client, urls, options, rate):
    """Requests a second and percentiles in ms of one run of oha."""
    argv = [client, "-z", f"{options.seconds}s", "-c", str(CONNECTIONS), "--redirect", "0", "--no-tui"]
    argv += ["--output-format", "json", "-H", f"User-Agent: {AGENT}"]
    if rate:
        argv += ["-q", str(rate), "--latency-correction"]
    output, _, _ = load.run_client([*argv, "--urls-from-file", urls], options.client_cpu)
    found = json.loads(output)
    # What is under way when the time is up is given up.
    errors = {text: count for text, count in found["errorDistribution"].items() if "deadline" not in text}
    if errors or set(found["statusCodeDistribution"]) != {"302"}:
        raise Failure(f"oha had errors: {errors}, {found['statusCodeDistribution']}")
    times = found["latencyPercentiles"]
    return {"rate": found["summary"]["requestsPerSec"]} | {
        name: times[name] * 1e3 for name in ("p50", "p99", "p99.9")
    }


def report(options, figures):
    rows = []
    for (asked, name), runs in figures.items():

        def middle(field):
            return median(run[field] for run in runs)

        reached = middle("rate") >= middle("asked") * REACHED_MIN
        rate = f"{middle('asked'):,.0f}" + (f" ({SHARE_OF_MAXIMUM:.0%} of maximum)" if asked is None else "")
        times = [f"{middle(field):.2f}" for field in ("p50", "p99", "p99.9")]
        sent = f"{middle('rate'):,.0f}" + ("" if reached else " (too few)")
        rows.append([WHAT[name], rate, sent, *times])
    heads = ("server", "asked for, requests/s", "sent", "p50 ms", "p99 ms", "p99.9 ms")
    print_table(f"Latency at a fixed rate, {CONNECTIONS} connections, open loop", heads, rows)
    print(f"\nMedians of {options.rounds} rounds of {options.seconds} s, corrected for coordinated omission.")
