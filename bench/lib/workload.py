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
ZIPF_EXPONENT = 1.0
SEED = 20_260_101


def make_targets(count):
    page = "https://www.example.com/articles/of/ordinary/length"
    return [f"{page}/number-{number:08}?from=bench&lang=en" for number in range(count)]


def make_codes(count, seed=SEED):
    chance = random.Random(seed)
    return ["".join(chance.choices(string.digits + string.ascii_letters, k=7)) for _ in range(count)]


def without_case_twins(links):
    """nginx's map ignores case: of codes that differ only by it, none is asked for."""
    spelled = Counter(code.lower() for code in links)
    return {code: target for code, target in links.items() if spelled[code.lower()] == 1}


def power_law(codes):
    """REQUESTS codes: that of rank r in proportion to 1/r; ranks are dealt at random."""
    chance = random.Random(SEED)
    codes = list(codes)
    chance.shuffle(codes)
    weights = list(accumulate(1 / rank**ZIPF_EXPONENT for rank in range(1, len(codes) + 1)))
    return [codes[bisect(weights, chance.random() * weights[-1])] for _ in range(REQUESTS)]


def write_requests(file, codes):
    """Writes what wrk plays: each code with the number of a user agent."""
    chance = random.Random(SEED)
    file.write_text("".join(f"{code}\t{chance.randint(1, AGENTS)}\n" for code in codes))
    return file
