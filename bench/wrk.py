"""wrk against raftkv's HTTP interface: bodies and keys are made by the Lua scripts beside this file."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bench.processes import BenchError
from bench.sample import Sample

LUA = Path(__file__).parent / "lua"


def run(
    script: str, addresses: Sequence[str], connection_count: int, duration_s: int, *args: str, timeout_s: int = 60
) -> Sample:
    """One thread an address (`host:port`); `args` go to the script's `init`.

    Answers of 400 and above, broken connections and timeouts are errors. `timeout_s` is grace beyond the duration.
    """
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
    done = subprocess.run(argv, capture_output=True, text=True, timeout=duration_s + timeout_s, check=False, env=env)
    for line in done.stdout.splitlines():
        if line.startswith("{"):
            facts = json.loads(line)
            return Sample(
                requests_per_s=facts["requests"] / (facts["duration_us"] / 1e6),
                p50_ms=facts["p50_us"] / 1e3,
                p99_ms=facts["p99_us"] / 1e3,
                error_count=facts["errors"],
            )
    raise BenchError(f"wrk gave no result: {done.stdout}{done.stderr}")
