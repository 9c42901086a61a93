"""Links and the requests for them: the same for every server of a run, and for every run."""

import random
import string
from bisect import bisect
from collections import Counter
from itertools import accumulate

# One list for every server, long enough that the caches of the processor can't hold what it asks for.
REQUESTS = 150_000
# As many as wrk/requests.lua has.
AGENTS = 4
AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/18.6 Mobile/15E148 Safari/604.1"
)
# What the agents of many visitors say of their system, and before the browser's engine.
VISITING_SYSTEMS = (
    ("Linux; Android 10; K", "Mobile "),
    ("Linux; Android 15; Pixel 9", "Mobile "),
    ("Windows NT 10.0; Win64; x64", ""),
    ("Macintosh; Intel Mac OS X 10_15_7", ""),
)
ZIPF_EXPONENT = 1.0
SEED = 20_260_101


def make_targets(count):
    page = "https://www.example.com/articles/of/ordinary/length"
    return [f"{page}/number-{number:08}?from=bench&lang=en" for number in range(count)]


def make_codes(count, seed=SEED):
    chance = random.Random(seed)
    return ["".join(chance.choices(string.digits + string.ascii_letters, k=7)) for _ in range(count)]


def make_unknown_names(count):
    """Codes that nobody has or will have: longer than those that are made, so that each has to be looked up."""
    return [f"{code}-unknown" for code in make_codes(count, SEED + 1)]


def without_case_twins(links):
    """nginx's map ignores case: of codes that differ only by it, none is asked for."""
    spelled = Counter(code.lower() for code in links)
    return {code: target for code, target in links.items() if spelled[code.lower()] == 1}


def power_law(codes):
    """REQUESTS of these codes, or what else: that of rank r in proportion to 1/r; ranks are dealt at random."""
    chance = random.Random(SEED)
    codes = list(codes)
    chance.shuffle(codes)
    weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, len(codes) + 1)))
    return [codes[bisect(weights, chance.random() * weights[-1])] for _ in range(REQUESTS)]


def write_visits(file, codes):
    """Writes what wrk plays as visitors of a large service come: many agents, referring pages and addresses."""
    chance = random.Random(SEED)
    agents = [
        f"Mozilla/5.0 ({system}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/{version}.0.{build}.0 {form}Safari/537.36"
        for system, form in VISITING_SYSTEMS
        for version in range(100, 141)
        for build in range(0, 6_000, 200)
    ]
    pages = [f"https://www.host-{number}.example/page?from={number}" for number in range(2_000)]

    def headers(agent, page):
        yield f"User-Agent: {agent}"
        yield f"X-Forwarded-For: 198.{chance.randint(0, 255)}.{chance.randint(0, 255)}.{chance.randint(0, 255)}"
        if chance.random() < 0.7:
            yield f"Referer: {page}"

    visits = zip(codes, power_law(agents), power_law(pages))
    lines = (f"{code}\t0\t{''.join(f'{header}|' for header in headers(*visit))}\n" for code, *visit in visits)
    file.write_text("".join(lines))
    return file


def write_requests(file, codes):
    """Writes what wrk plays: each code with the number of a user agent."""
    chance = random.Random(SEED)
    file.write_text("".join(f"{code}\t{chance.randint(1, AGENTS)}\n" for code in codes))
    return file
