"""wrk against raftkv's HTTP interface: bodies and keys are made by the Lua scripts beside this file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.processes import BenchError
from bench.sample import Sample

LUA = Path(__file__).parent / "lua"


def run(script: str, addresses: Sequence[str], connection_count: int, duration_s: int, *args: str) -> Sample:
    """One thread an address (`host:port`); `args` go to the script's `init`.

    Answers of 400 and above, broken connections and timeouts are errors.
    """
    process = _start(script, addresses, connection_count, duration_s, *args)
    out, _ = process.communicate(timeout=duration_s + 60)
    return _sample(out)


def run_until(
    is_done: Callable[[], bool], script: str, address: str, connection_count: int, *args: str, timeout_s: int = 900
) -> Sample:
    """As `run`, but ended (by SIGINT, upon which wrk reports) as soon as `is_done`, which is asked twice a second.

    A script can stop its requests, but not wrk, which sleeps for the whole of its duration.
    """
    process = _start(script, [address], connection_count, timeout_s, *args)
    while not is_done() and process.poll() is None:
        time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    return _sample(out)


def _start(
    script: str, addresses: Sequence[str], connection_count: int, duration_s: int, *args: str
) -> subprocess.Popen[str]:
    argv = [
        "wrk",
        f"-t{len(addresses)}",
        f"-c{connection_count}",
        f"-d{duration_s}s",
        "--timeout=10s",
        f"--script={LUA / script}",
        f"http://{addresses[0]}",
        "--",
        *args,
    ]
    env = {**os.environ, "LUA_PATH": f"{LUA}/?.lua;;", "BENCH_ADDRESSES": ",".join(addresses)}
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env)


def _sample(out: str) -> Sample:
    for line in out.splitlines():
        if line.startswith("{"):
            facts = json.loads(line)
            return Sample(
                requests_per_s=facts["requests"] / (facts["duration_us"] / 1e6),
                p50_ms=facts["p50_us"] / 1e3,
                p99_ms=facts["p99_us"] / 1e3,
                error_count=facts["errors"],
            )
    raise BenchError(f"wrk gave no result: {out}")
