"""h2load against etcd's gRPC interface: a recorded frame is posted again and again, each time with another key.

h2load can send one body only; `preload/random_keys.c`, loaded into it, gives each body random digits where the
frame has its key's.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

from bench.processes import BenchError
from bench.sample import Sample, percentile

_TOTALS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")


PRELOAD_SOURCE = Path(__file__).parent / "preload" / "random_keys.c"


class RandomKeys(NamedTuple):
    """Nine digits at `offset` of the body become a number below `key_count`."""

    library: Path
    offset: int
    key_count: int

    def environment(self) -> dict[str, str]:
        return {
            "LD_PRELOAD": str(self.library),
            "RANDOM_KEYS_OFFSET": str(self.offset),
            "RANDOM_KEYS_COUNT": str(self.key_count),
        }


def build_preload(directory: Path) -> Path:
    library = directory / "random_keys.so"
    argv = ["cc", "-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(library), str(PRELOAD_SOURCE)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise BenchError(f"{PRELOAD_SOURCE.name} does not compile: {done.stderr}")
    return library


def run(url: str, body: bytes, keys: RandomKeys, connection_count: int, duration_s: int, directory: Path) -> Sample:
    """`directory` takes the body and h2load's log of every request."""
    frame_path, log_path = directory / "frame.bin", directory / "h2load.log"
    frame_path.write_bytes(body)
    log_path.unlink(missing_ok=True)
    argv = [
        "h2load",
        "--threads=1",
        f"--clients={connection_count}",
        "--max-concurrent-streams=1",
        f"--duration={duration_s}",
        "--warm-up-time=1",
        f"--log-file={log_path}",
        "--header=content-type: application/grpc",
        "--header=te: trailers",
        f"--data={frame_path}",
        url,
    ]
    env = {**os.environ, **keys.environment()}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=duration_s + 60, check=False, env=env)
    totals = _TOTALS.search(done.stdout)
    if totals is None:
        raise BenchError(f"h2load gave no result: {done.stdout}{done.stderr}")
    elapsed_ms = sorted(int(line.rpartition("\t")[2]) / 1e3 for line in log_path.read_text().splitlines())
    log_path.unlink()
    total, succeeded = int(totals[1]), int(totals[2])
    if not elapsed_ms or succeeded == 0:
        raise BenchError(f"h2load had no answer from {url}: {done.stdout}")
    return Sample(
        requests_per_s=succeeded / duration_s,
        p50_ms=percentile(elapsed_ms, 0.50),
        p99_ms=percentile(elapsed_ms, 0.99),
        error_count=total - succeeded,
    )
