"""h2load against etcd's gRPC interface: a recorded frame is posted again and again.

h2load sends one body only, so every etcd put writes the same key. bbolt is keyed by revision, not by
key, and a Raft entry costs the same whatever is in it; `python -m bench crosscheck` measures what the
one key is worth with a sender that can vary it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from bench.processes import BenchError
from bench.sample import Sample, percentile

_TOTALS = re.compile(r"requests: (\d+) total, .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout")


def run(
    url: str, frame_path: Path, connection_count: int, duration_s: int, log_path: Path
) -> tuple[Sample, list[float]]:
    """The sample, and every request's milliseconds in ascending order (to merge runs)."""
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
    done = subprocess.run(argv, capture_output=True, text=True, timeout=duration_s + 60, check=False)
    totals = _TOTALS.search(done.stdout)
    if totals is None:
        raise BenchError(f"h2load gave no result: {done.stdout}{done.stderr}")
    elapsed_ms = sorted(int(line.rpartition("\t")[2]) / 1e3 for line in log_path.read_text().splitlines())
    log_path.unlink()
    total, succeeded = int(totals[1]), int(totals[2])
    if not elapsed_ms or succeeded == 0:
        raise BenchError(f"h2load had no answer from {url}: {done.stdout}")
    sample = Sample(
        requests_per_s=succeeded / duration_s,
        p50_ms=percentile(elapsed_ms, 0.50),
        p99_ms=percentile(elapsed_ms, 0.99),
        error_count=total - succeeded,
    )
    return sample, elapsed_ms
