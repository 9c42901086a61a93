"""Starts real servers on loopback for the tests and the benchmark, and stops each by its pid."""

import http.client
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS_MAX = 30
# A server has ten seconds to finish its requests; what is slower than this hangs.
# The longest time that clicks wait for their commit, and a little more.
CLICKS_SECONDS_MAX = 90
STOP_SECONDS_MAX = 15


class Failure(Exception):
    """What went wrong, in a sentence for the person at the terminal."""


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


def run_main(main):
    """Runs `main`, so that Ctrl-C and SIGTERM too leave through `finally` and no server stays behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    except Failure as failure:
        sys.exit(f"FAILED: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server process; as a context manager it is running inside the block and gone after it."""

    def __init__(self, name, argv, *, log, env=None, cpu=None, port=None):
        self.name = name
        self.argv = [str(arg) for arg in argv]
        self.log = Path(log)
        self.env = env
        self.cpu = cpu
        self.port = self.own_port = port
        self.process = None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    @property
    def pid(self):
        return self.process.pid

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def start(self):
        def pin():
            if self.cpu is not None:
                os.sched_setaffinity(0, {self.cpu})

        # A free port is another one after a restart.
        self.port = self.own_port
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.env,
                preexec_fn=pin,
                # Ctrl-C at the terminal is for this program, which then ends its servers in order.
                start_new_session=True,
            )
        try:
            self._wait_until_listening()
        except BaseException:
            self.kill()
            raise

    def stop(self):
        """Ends it with SIGTERM; a server that does not leave in time is a failure, not something to hide."""
        if self.process is None:
            return
        if self.process.poll() is not None:
            raise Failure(f"{self.name} ended by itself with status {self.process.returncode}{self._log_tail()}")
        self.process.terminate()
        try:
            status = self.process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"{self.name} did not end within {STOP_SECONDS_MAX} s of SIGTERM") from None
        self.process = None
        # A program without a handler for it dies of the signal, which is an end as good as any.
        if status not in (0, -signal.SIGTERM):
            raise Failure(f"{self.name} ended with status {status} on SIGTERM{self._log_tail()}")

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _wait_until_listening(self):
        end = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise Failure(
                    f"{self.name} ended at start with status {self.process.returncode}{self._log_tail()}"
                )
            if self.port is None:
                found = re.search(rb"listening on https?://127\.0\.0\.1:(\d+)", self.log.read_bytes())
                self.port = int(found[1]) if found else None
            if self.port is not None and self._accepts():
                return
            time.sleep(0.01)
        raise Failure(f"{self.name} was not listening after {START_SECONDS_MAX} s{self._log_tail()}")

    def _accepts(self):
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
            return True
        except OSError:
            return False

    def _log_tail(self):
        lines = self.log.read_text(errors="replace").splitlines()[-15:]
        return "".join(f"\n  {line}" for line in lines)


class Terse(Server):
    """terse on a data folder, without rate limits; `cli` runs its commands on the same folder."""

    def __init__(self, binary, data_dir, *, cpu=None, workers=None, variables=None):
        # Nothing that the caller has set for a server of their own may leak into this one.
        env = {key: value for key, value in os.environ.items() if not key.startswith("TERSE_")}
        env |= {
            "TERSE_DATA_DIR": str(data_dir),
            "TERSE_LISTEN": "127.0.0.1:0",
            "TERSE_RATE_LIMITS": "off",
        } | (variables or {})
        if workers is not None:
            env["TERSE_WORKERS"] = str(workers)
        self.binary = str(binary)
        super().__init__("terse", [binary, "serve"], log=f"{data_dir}.log", env=env, cpu=cpu)

    def cli(self, *args):
        """Runs one command and gives its output; a command that fails is a failure with its words."""
        done = subprocess.run(
            [self.binary, *map(str, args)], env=self.env, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Failure(f"`terse {' '.join(map(str, args))}` ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout

    def connect(self):
        """A connection as its listener wants it. Whose certificate it is does not matter on loopback."""
        if "TERSE_TLS_CERT" in self.env:
            return http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=60, context=ssl._create_unverified_context()
            )
        return connect(self.port)

    def metrics(self):
        """What /metrics says, by name; of metrics with labels nothing."""
        status, _, text = request(self.connect(), "GET", "/metrics")
        if status != 200:
            raise Failure(f"terse answers /metrics with {status}")
        lines = [line.split() for line in text.decode().splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in lines if "{" not in name}

    def wait_for_clicks(self):
        """Waits until every click is in the rollups; one that was dropped is a failure."""
        end = time.monotonic() + CLICKS_SECONDS_MAX
        while True:
            metrics = self.metrics()
            if metrics["terse_clicks_dropped_total"]:
                raise Failure(f"terse has dropped {metrics['terse_clicks_dropped_total']:.0f} clicks")
            left = metrics["terse_clicks_appended_total"] - metrics["terse_clicks_processed_total"]
            if not left and not metrics["terse_clicks_lag_events"]:
                return
            if time.monotonic() > end:
                raise Failure(f"after {CLICKS_SECONDS_MAX} s {left:.0f} clicks are not in the rollups")
            time.sleep(0.2)

    def admin_key(self):
        return self.cli("keys", "create", "--name", "tests", "--role", "admin", "--tier", "unlimited").strip()

    def start(self):
        super().start()
        status, _, _ = request(self.connect(), "GET", "/health")
        if status != 200:
            raise Failure(f"terse answers /health with {status}")


def connect(port):
    return http.client.HTTPConnection("127.0.0.1", port, timeout=60)


def request(connection, method, path, body=None, headers=None):
    """One HTTP request: its status, headers and body. Follows no redirect."""
    connection.request(method, path, body, headers or {})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


def check_redirects(port, expected):
    """Asks for every code over one connection: each must be a 302 to exactly the address that belongs to it."""
    connection = connect(port)
    for code, target in expected.items():
        status, headers, _ = request(connection, "GET", f"/{code}")
        if (status, headers["location"]) != (302, target):
            raise Failure(f"/{code} answers {status} to {headers['location']!r}, expected 302 to {target!r}")
    connection.close()


def create_in_bulk(port, key, targets, **fields):
    """Creates a link for each address in one request; gives the codes in their order and the seconds it took."""
    body = "".join(json.dumps({"long_url": target} | fields) + "\n" for target in targets).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
    began = time.monotonic()
    status, _, answer = request(connect(port), "POST", "/api/v1/urls/bulk", body, headers)
    seconds = time.monotonic() - began
    if status != 200:
        raise Failure(f"the bulk request was answered with {status}: {answer[:500]!r}")
    results = json.loads(answer)["results"]
    refused = [result for result in results if result["status"] != 201]
    if refused or len(results) != len(targets):
        raise Failure(f"of {len(targets)} rows {len(results)} were answered, {len(refused)} refused: {refused[:1]}")
    return [result["link"]["short_code"] for result in results], seconds


def main():
    """`servers.py BINARY COMMAND…` runs a command with TERSE_TEST_URL and TERSE_TEST_KEY of a fresh server."""
    binary, *command = sys.argv[1:]
    with tempfile.TemporaryDirectory(prefix="terse-test-") as folder:
        with Terse(binary, f"{folder}/data") as server:
            env = os.environ | {"TERSE_TEST_URL": server.url, "TERSE_TEST_KEY": server.admin_key()}
            return subprocess.run(command, env=env).returncode


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    run_main(main)
