"""Values for the formats of our OpenAPI document: what a schema can't describe, so that requests get past validation."""

import datetime

import schemathesis
from hypothesis import strategies as st

hosts = st.sampled_from(["example.com", "sub.example.org", "xn--bcher-kva.example", "192.0.2.1", "[2001:db8::1]"])
paths = st.text("abcXYZ019-._~%20/", max_size=30).filter(lambda path: "%" not in path)
queries = st.one_of(st.just(""), st.text("ab=&1+", min_size=1, max_size=20).map(lambda query: "?" + query))
targets = st.builds("{}://{}/{}{}".format, st.sampled_from(["http", "https"]), hosts, paths, queries)

schemathesis.openapi.format("link-target", targets)
schemathesis.openapi.format("future-time", st.dates().filter(lambda day: day.year > 2100).map(lambda day: day.isoformat()))
schemathesis.openapi.format("past-time", st.dates().filter(lambda day: 1970 < day.year < 2027).map(lambda day: day.isoformat()))
days_ago = st.integers(1, 300).map(datetime.timedelta)
schemathesis.openapi.format("recent-date", days_ago.map(lambda ago: (datetime.datetime.now(datetime.UTC).date() - ago).isoformat()))
schemathesis.openapi.format("time-zone", st.sampled_from(["UTC", "Europe/Zurich", "Asia/Kathmandu", "+05:30", "-10:00"]))
# The default domain of the server under test; another one would have to be registered first.
schemathesis.openapi.format("registered-host", st.just("127.0.0.1"))
