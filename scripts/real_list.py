#!/usr/bin/env python3
"""Imports 30,070 real addresses through the command line into a running terse, follows every code over HTTP, exports,
backs up, restores into a second data folder and compares all again. Usage: scripts/real_list.py BINARY"""

import csv
import json
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts/lib"))

from servers import Failure, Terse, check_redirects, create_in_bulk, run_main, say

LIST = ROOT / "crates/server/testdata/urls.txt"
ADDRESSES = 30_070
CHANGED = 1_383
# What a browser makes of the addresses that need more than a slash after a bare host.
REWRITTEN = {
    "http://MediaArea.net/MediaInfo": "http://mediaarea.net/MediaInfo",
    "http://http://code.google.com/p/ucpp/": "http://http//code.google.com/p/ucpp/",
    "http://tats.hauN.org/im/": "http://tats.haun.org/im/",
    "http://www.Rmetrics.org": "http://www.rmetrics.org/",
    "https://www.4Pane.co.uk": "https://www.4pane.co.uk/",
    "https://www.Nuand.com/bladeRF": "https://www.nuand.com/bladeRF",
}


def main():
    binary = Path(sys.argv[1]).resolve() if len(sys.argv) == 2 else sys.exit(__doc__)
    addresses = LIST.read_text().splitlines()
    expected = [normalised(address) for address in addresses]
    expect("addresses in the list", len(set(addresses)), ADDRESSES)
    expect("addresses that change", sum(a != b for a, b in zip(addresses, expected)), CHANGED)

    with tempfile.TemporaryDirectory(prefix="terse-real-list-") as folder:
        folder = Path(folder)
        backup = folder / "backup"
        with Terse(binary, folder / "first") as first:
            links = import_list(first, addresses, folder / "urls.csv")
            expect("different addresses in the export", set(links.values()), set(expected))
            follow_all(first, links)
            import_again(first, folder / "urls.csv", links)
            first.cli("backup", backup)
            later, _ = create_in_bulk(first.port, first.admin_key(), numbered("after-the-backup", 100))

        second = Terse(binary, folder / "second")
        second.cli("restore", backup)
        with second:
            expect("links in the restored folder", export(second, folder / "second.ndjson"), links)
            follow_all(second, links)
            fresh, _ = create_in_bulk(second.port, second.admin_key(), numbered("after-the-restore", 10_000))
            given_twice = set(fresh) & (set(later) | set(links))
            expect("codes given out a second time after the restore", given_twice, set())
    say(f"the real list came through: {len(addresses):,} addresses, {len(links):,} links")


def normalised(address):
    """The WHATWG form by a rule that needs no parser and holds for this list (checked against Node's parser)."""
    if address in REWRITTEN:
        return REWRITTEN[address]
    return address + "/" if address.count("/") == 2 else address


def import_list(server, addresses, file):
    with file.open("w", newline="") as out:
        csv.writer(out).writerows([["long_url"], *([address] for address in addresses)])
    began = time.monotonic()
    report = json.loads(server.cli("import", file, "--json"))
    say(f"imported in {time.monotonic() - began:.1f} s")
    # 67 addresses are another one's twin once they are normalised: made apart or found again, none may be missing.
    expect("addresses made or found by the import", report["created"] + report["existing"], len(addresses))
    expect("addresses refused by the import", report["refused"], 0)
    links = export(server, file.with_suffix(".ndjson"))
    expect("links in the export", len(links), report["created"])
    return links


def import_again(server, file, links):
    report = json.loads(server.cli("import", file, "--json"))
    expect("links made by the same import again", report["created"], 0)
    expect("links after the same import again", export(server, file.with_suffix(".again.ndjson")), links)


def export(server, file):
    """{code: address} of everything, as `terse export` writes it."""
    server.cli("export", "--format", "ndjson", file)
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    links = {row["short_code"]: row["long_url"] for row in rows}
    expect("different codes in the export", len(links), len(rows))
    return links


def follow_all(server, links):
    began = time.monotonic()
    check_redirects(server.port, links)
    say(f"{len(links):,} codes lead to exactly their address ({time.monotonic() - began:.1f} s)")


def numbered(word, count):
    return [f"https://www.example.com/{word}/{number}" for number in range(count)]


def expect(what, is_, should_be):
    if is_ != should_be:
        raise Failure(f"{what}: {shorten(is_)}, expected {shorten(should_be)}{difference(is_, should_be)}")


def shorten(value):
    return f"{len(value):,} of them" if isinstance(value, set | dict) else repr(value)


def difference(is_, should_be):
    if isinstance(is_, dict):
        is_, should_be = set(is_.items()), set(should_be.items())
    if not isinstance(is_, set):
        return ""
    return f"; too many: {sorted(is_ - should_be)[:3]}, missing: {sorted(should_be - is_)[:3]}"


if __name__ == "__main__":
    run_main(main)
