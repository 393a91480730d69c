"""Syncs that lie or fail in a real node: `faulty_sync.c`, built here, put between the node and libc."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.e2e.waiting import eventually

_SOURCE = Path(__file__).with_name("faulty_sync.c")


def build_faulty_sync(directory: Path) -> Path | None:
    """The library, for LD_PRELOAD; None where there is no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    library = directory / "faulty_sync.so"
    command = [compiler, "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(_SOURCE), "-ldl"]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return library


def faulty(library: Path, *, lies: bool = False, in_thread: bool = False, delay_ms: int = 0) -> dict[str, str]:
    """The environment of a node whose syncs do nothing and say that all is well, whose log has to sync in a thread, or
    whose syncs wait up to `delay_ms` first: then there is always a write on its way to the disk, and half there.
    """
    variables = {"LD_PRELOAD": str(library)}
    if lies:
        variables["SYNC_LIES"] = "1"
    if in_thread:
        variables["SYNC_NO_AIO"] = "1"
    if delay_ms:
        variables["SYNC_DELAY_MS"] = str(delay_ms)
    return variables


class SyncFault:
    """One sync that fails with EIO, when the test says so."""

    def __init__(self, library: Path, trigger: Path, part: str, *, in_thread: bool = False) -> None:
        """Only syncs of files whose path contains `part` count. `trigger` must not exist."""
        self._trigger = trigger
        self.variables = {**faulty(library, in_thread=in_thread), "SYNC_FAULT": str(trigger), "SYNC_FAULT_IN": part}

    def arm(self) -> None:
        """The next sync fails."""
        self._trigger.touch()

    def wait_struck(self) -> None:
        eventually(lambda: not self._trigger.exists(), "a sync has failed", 30)

    def disarm(self) -> None:
        self._trigger.unlink(missing_ok=True)
