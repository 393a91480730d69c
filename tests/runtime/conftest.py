"""Where the nodes of these tests keep their files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")  # noqa: S108 -- only a directory of our own, with a random name, is made in it
ROOM_BYTES = 1 << 30


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory in memory where there is room: whole nodes start and stop hundreds of times here, for what they say.

    What a disk does to them is for the tests of storage and for e2e.
    """
    if not MEMORY.is_dir() or shutil.disk_usage(MEMORY).free < ROOM_BYTES:
        yield tmp_path_factory.mktemp("runtime")
        return
    with tempfile.TemporaryDirectory(prefix="raftkv-", dir=MEMORY) as directory:
        yield Path(directory)
