"""Creates: one link a request, many in one, and from a file, with and without a running server."""

import json
import os
import time
from statistics import median

import load
from machine import file_system, print_table, syncs_per_second
from servers import Failure, Terse, create_in_bulk, say
from workload import make_targets

CONNECTIONS = (1, 64, 256)


def run(options, binaries, folder):
    """All on an unpinned server that shares the machine with its client."""
    rows = {}
    syncs = syncs_per_second(folder)
    # Commands on a folder that no server uses act on it themselves.
    idle = Terse(binaries["terse"], folder / "idle-data")
    with Terse(binaries["terse"], folder / "terse-data") as server:
        key = server.admin_key()
        for round_number in range(1, options.rounds + 1):
            for connections in CONNECTIONS:
                name = f"durable, one a request, {connections} connection{'s' * (connections != 1)}"
                word = f"round-{round_number}-{connections}"
                played = load.wrk(
                    server.port, "creates.lua", key, word, connections=connections, seconds=options.seconds
                )
                figures = (played.requests_per_second, played.p50_ms, played.p99_ms, played.p999_ms)
                rows.setdefault(name, []).append(figures)
            targets = [f"{target}&round={round_number}" for target in make_targets(options.links)]
            rate = len(targets) / create_in_bulk(server.port, key, targets)[1]
            rows.setdefault(f"bulk, {len(targets):,} rows a request (NDJSON)", []).append((rate,))
            for kind, write in (("NDJSON", write_ndjson), ("CSV", write_csv)):
                for where, terse in (("no server running", idle), ("into a running server", server)):
                    # The same address again would be found, not created.
                    own = [f"{target}&as={kind}" for target in targets]
                    rate = import_rate(terse, write(folder / f"links.{kind.lower()}", own), len(own))
                    rows.setdefault(f"`terse import`, {kind}, {where}", []).append((rate,))
            say(f"round {round_number}/{options.rounds}: {', '.join(f'{own[-1][0]:,.0f}' for own in rows.values())}/s")
    report(options, folder, rows, syncs)


def import_rate(terse, file, count):
    """Links a second of one `terse import`, its start and end included."""
    began = time.monotonic()
    done = json.loads(terse.cli("import", "--json", file))
    if done["created"] != count:
        raise Failure(f"of {count} rows terse import created {done['created']}: {done}")
    return count / (time.monotonic() - began)


def write_ndjson(file, targets):
    file.write_text("".join(json.dumps({"long_url": target}) + "\n" for target in targets))
    return file


def write_csv(file, targets):
    file.write_text("long_url\n" + "".join(f"{target}\n" for target in targets))
    return file


def report(options, folder, rows, syncs):
    def cells(name, runs):
        rate, *times = (median(column) for column in zip(*runs))
        return [name, f"{rate:,.0f}", *(f"{time:.2f}" for time in times), *["–"] * (3 - len(times))]

    title = f"Creates, server and client sharing {len(os.sched_getaffinity(0))} processors"
    heads = ("what", "links/s", "p50 ms", "p99 ms", "p99.9 ms")
    print_table(title, heads, [cells(name, runs) for name, runs in rows.items()])
    print(f"\nMedians of {options.rounds} rounds. On this folder ({file_system(folder)}) one writer that syncs each")
    print(f"4 KiB by itself reaches {syncs:,.0f} writes/s.")
