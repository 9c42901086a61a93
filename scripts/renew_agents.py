#!/usr/bin/env python3
"""Renews the lists by which user agents are told to be bots, and the agents that tests try them on.
Usage: scripts/renew_agents.py

It takes two npm packages at the versions named below, so a build needs neither npm nor a network. To renew: raise the
versions, run it, run `cargo test -p terse-server --lib clicks::agent`, and read the diff. A pattern that takes people
for bots goes into NOT_TAKEN or REPLACED with its reason; a bot that passes goes into the list in agent.rs."""

import json
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "crates/server/data/agents"
TESTDATA = ROOT / "crates/server/testdata/agents"

ISBOT = ("isbot", "5.2.3")
CRAWLERS = ("crawler-user-agents", "1.60.0")
# Browsers, for tests only.
USER_AGENTS = ("user-agents", "2.1.198")

WHAT = "What to search for: texts, ^texts at the start, and /regular expressions/."

# Patterns that speak of browsers too, and why they are left out.
NOT_TAKEN = {
    "MetaIAB Facebook": "the browser inside Facebook's app",
    r"AP3A\.240617\.008": "a build of Android 15",
    r"008\/": "ends of versions; isbot's patterns find the bot",
    "chromeframe": "a plug-in of old Internet Explorers",
    "Butterfly": "a phone of HTC; isbot's patterns find the bot",
    "Sonic": "phones of ViewSonic; isbot's patterns find the bots",
    "Sogou": "the company's browsers too; isbot's pattern finds the bots",
    r"\|": "Alipay's browser tells the size of its window so",
    r"\(\)": "televisions",
    r"\b\w+/1\.0;": "televisions say CE-HTML/1.0; and HbbTV/1.1.1; and the like",
}
# Patterns that speak of browsers too, and what is taken instead.
REPLACED = {
    # The browsers inside these apps name them further on.
    "Viber": "^Viber",
    "WhatsApp": "^WhatsApp",
    r"Tumblr\/": r"^Tumblr\/",
    r"Notion\/": r"^Notion\/",
    r"Bluesky\/": r"^Bluesky\/",
    # The company's search app and its browser for phones.
    "sogou": "sogou(?!mse|mobilebrowser|search)",
    # Apps for news with a browser inside: SmartNews, SohuNews, Toutiao, NewsBreak, Bing.
    "(?:^|[^g])news(?!sapphire)": "(?<!g|smart|sohu)news(?!sapphire|article|break)",
    # Televisions.
    "(?<! channel/|google/)google(?!(?:wv|app|/google| pixel))":
        "(?<! channel/|google/)google(?!wv|app|/google| pixel|tv| tv)",
    # A phone.
    "radar": "(?<!htc; |nokia; )radar",
    # Old phones of LG and Nokia.
    "java(?!;)": "java(?!;|/jbed|/asvm|/lgvm|_runtime)",
}


def main():
    if len(sys.argv) != 1:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory(prefix="terse-agents-") as folder:
        isbot, isbot_licence = read(folder, ISBOT, "index.mjs", "LICENSE")
        crawlers, crawlers_licence = read(folder, CRAWLERS, "crawler-user-agents.json", "LICENSE")
        browsers, browsers_licence = read(folder, USER_AGENTS, "dist/user-agents.json", "LICENSE")

    patterns = json.loads(re.search(r"patterns_default = (\[.*?\]);", isbot, re.DOTALL)[1])
    crawlers = json.loads(crawlers)
    known = {entry["pattern"] for entry in crawlers} | set(patterns)
    if gone := [one for one in [*NOT_TAKEN, *REPLACED] if one not in known]:
        sys.exit(f"no longer in the lists: {gone}")

    lines = [line_of(REPLACED.get(one, one)) for one in patterns if one not in NOT_TAKEN]
    write(DATA / "isbot.txt", f"{WHAT} Case doesn't matter.", ISBOT, isbot_licence, lines)

    patterns = {entry["pattern"] for entry in crawlers} - set(NOT_TAKEN)
    lines = sorted(line_of(REPLACED.get(one, one)) for one in patterns)
    write(DATA / "crawlers.txt", f"{WHAT} Case matters.", CRAWLERS, crawlers_licence, lines)

    lines = sorted({one for entry in crawlers for one in entry.get("instances", [])})
    write(TESTDATA / "crawlers.txt", "Agents of crawlers, one a line.", CRAWLERS, crawlers_licence, lines)

    lines = sorted({entry["userAgent"] for entry in json.loads(browsers)})
    what = "Agents of browsers, one a line."
    write(TESTDATA / "browsers_public.txt", what, USER_AGENTS, browsers_licence, lines)


def read(folder, package, *paths):
    """The text of files in a published package."""
    name, version = package
    command = ["npm", "pack", "--silent", "--pack-destination", folder, f"{name}@{version}"]
    archive = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    with tarfile.open(Path(folder) / archive) as files:
        return [files.extractfile(f"package/{path}").read().decode() for path in paths]


def write(path, what, package, licence, lines):
    name, version = package
    head = [what, "", f"From {name} {version} by scripts/renew_agents.py; don't edit. Its licence:", ""]
    head = [f"# {line}".rstrip() for line in head + licence.strip().splitlines()]
    odd = [line for line in lines if not line or line.startswith("#") or not line.isprintable()]
    for line in odd:
        print(f"{path.name}: left out {line!r}")
    lines = [line for line in lines if line not in odd]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(head + lines) + "\n")
    print(f"{path.relative_to(ROOT)}: {len(lines)} lines")


def line_of(pattern):
    """A pattern as it stands in our files."""
    is_start = pattern.startswith("^")
    text = literal(pattern.removeprefix("^"))
    if text is None:
        return f"/{for_rust(pattern)}/"
    return f"^{text}" if is_start else text


def literal(pattern):
    """The text that the regular expression `pattern` stands for, or None if it stands for more than one."""
    text = re.sub(r"\\([^\w\s])", lambda match: chr(0xE000 + ord(match[1])), pattern)
    # The lists write some dots without a backslash; they mean dots.
    if re.search(r"[\\^$|?*+()\[\]{}]", text):
        return None
    return "".join(chr(ord(one) - 0xE000) if 0xE000 <= ord(one) <= 0xE0FF else one for one in text)


def for_rust(pattern):
    """The same expression of JavaScript for Rust's engine, which knows no lookaround: what may not stand beside a word
    is written as what may."""
    # A hyphen between a class and a letter is no range.
    pattern = re.sub(r"(\\[dsw])-", r"\1\\-", pattern)
    words = r"\(\?<?!(?:\(\?:)?([^()]*)\)?\)"
    pattern = re.sub(words.replace("<?", "<", 1), lambda match: unlike(match[1], before=True), pattern)
    pattern = re.sub(words.replace("<?", "", 1), lambda match: unlike(match[1], before=False), pattern)
    if "(?=" in pattern or "(?!" in pattern or "(?<" in pattern:
        sys.exit(f"cannot do without lookaround: {pattern}")
    return pattern


def unlike(words, before):
    """An expression for what can stand before or after a text without being one of `words`."""
    words = words.split("|")
    if any(re.search(r"[^\w /;]", word) for word in words):
        sys.exit(f"more than words in lookaround: {words}")
    return spelled([word[::-1] if before else word for word in words], before)


def spelled(words, before):
    first = sorted({word[0] for word in words})
    edge = "^" if before else "$"
    ways = [edge, f"[^{''.join(first)}]"]
    for letter in first:
        rest = [word[1:] for word in words if word[0] == letter]
        if "" not in rest:
            further = spelled(rest, before)
            ways.append(further + letter if before else letter + further)
    return f"(?:{'|'.join(ways)})"


if __name__ == "__main__":
    main()
