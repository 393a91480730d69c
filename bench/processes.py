"""Child processes with a log file each, free ports, and what the kernel says about a process.

Ports come from below the ephemeral range: a node that is down must not find its own port taken by an
outgoing connection of a neighbour that keeps dialling it (on loopback even a connection to itself).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

CLOCK_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class BenchError(Exception):
    """The bench cannot go on; the text says what is missing or what went wrong."""


class Child:
    """One process in its own session, with its output in `log_path`."""

    def __init__(self, name: str, argv: Sequence[str], log_path: Path, env: Mapping[str, str] | None = None) -> None:
        self.name = name
        self.log_path = log_path
        with log_path.open("ab") as log:
            self._process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def is_running(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self, timeout_s: float = 20.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s`; the exit status."""
        if self.is_running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()

    def cpu_s(self) -> float:
        """User and system time used so far; 0.0 when the process is gone."""
        with contextlib.suppress(OSError, IndexError):
            fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS_PER_S
        return 0.0

    def resident_bytes(self, field: str = "VmRSS") -> int:
        """`VmRSS` (now) or `VmHWM` (the most so far)."""
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith(field + ":"):
                    return int(line.split()[1]) * 1024
        return 0

    def log_tail(self, line_count: int = 15) -> str:
        return "\n".join(self.log_path.read_text(errors="replace").splitlines()[-line_count:])


_reserved = contextlib.ExitStack()
atexit.register(_reserved.close)


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on now, all different, reserved by holding the UDP ports of the same numbers."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(12_000, 32_000)
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
        else:
            _reserved.enter_context(reservation)
            found.append(port)
    return found


def wait_until(condition: Callable[[], bool], what: str, timeout_s: float = 30.0, pause_s: float = 0.02) -> float:
    """Poll until true; the seconds it took."""
    start = time.monotonic()
    while not condition():
        if time.monotonic() - start > timeout_s:
            raise BenchError(f"{what}: not within {timeout_s:g} s")
        time.sleep(pause_s)
    return time.monotonic() - start


@contextlib.contextmanager
def cpu_meter(children: Sequence[Child]) -> Iterator[Callable[[], float]]:
    """Yields a function that says how much processor time the children used since."""
    before = sum(child.cpu_s() for child in children)
    yield lambda: sum(child.cpu_s() for child in children) - before


def settle(children: Sequence[Child], timeout_s: float = 20.0) -> None:
    """Wait until the children together use less than a fifth of a core (no compaction left over)."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = sum(child.cpu_s() for child in children)
        time.sleep(0.5)
        if sum(child.cpu_s() for child in children) - before < 0.1:
            return
