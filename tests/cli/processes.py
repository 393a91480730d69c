"""Real `raftkv` processes for tests: free ports, lines of output, and no process left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.ports import free_port


def free_ports(count: int) -> list[int]:
    """Ports that were free a moment ago, all different."""
    return [free_port() for _ in range(count)]


@contextlib.contextmanager
def raftkv_process(*words: str, cwd: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """`raftkv` with these words and no settings but those of `environment`; killed at the end if still there."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("RAFT", "SERVER_PORT"))}
    process = subprocess.Popen(
        [sys.executable, "-m", "raftkv", *words],
        cwd=cwd,
        env={**inherited, "NO_COLOR": "1", "COLUMNS": "200", "PYTHONUNBUFFERED": "1", **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with process:
            yield process
            process.kill()
    except BaseException:
        process.kill()
        raise


def read_until(stream: Iterator[str] | None, is_last: Callable[[str], bool]) -> list[str]:
    """Lines up to the one that `is_last`; all of them when the stream ends before."""
    assert stream is not None
    lines: list[str] = []
    for line in stream:
        lines.append(line.rstrip("\n"))
        if is_last(line):
            break
    return lines


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def interrupt(process: subprocess.Popen[str], number: int = signal.SIGINT) -> tuple[str, str]:
    process.send_signal(number)
    return process.communicate(timeout=60)
