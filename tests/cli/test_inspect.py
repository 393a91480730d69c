"""`raftkv inspect` on a directory that a real node wrote and left."""

from __future__ import annotations

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import pytest

from raftkv.errors import NoLeader
from raftkv.kv import Put
from raftkv.runtime import Node, Settings
from raftkv.storage import DataDirectory
from raftkv.types import WriteMode
from tests.cli.command import Command
from tests.cli.processes import free_ports

KEY_COUNT = 20


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with some keys, of a node that stopped."""
    directory = tmp_path_factory.mktemp("written") / "node1"

    async def main() -> None:
        server_port, raft_port = free_ports(2)
        settings = Settings(
            node_id="node1",
            data_dir=directory,
            server_port=server_port,
            raft_port=raft_port,
            segment_size_bytes=1 << 20,
        )
        node = await Node.start(settings)
        answered = asyncio.Event()
        stored: set[int] = set()

        def put(number: int) -> None:
            command = Put(b"key-%d" % number, b'"%s"' % (b"v" * 100))
            node.submit(command, lambda result: done(number, result), WriteMode.FORWARD)

        def done(number: int, result: object) -> None:
            if isinstance(result, NoLeader):  # it leads itself in a moment
                asyncio.get_running_loop().call_soon(put, number)
                return
            assert not isinstance(result, Exception), result
            stored.add(number)
            if len(stored) == KEY_COUNT:
                answered.set()

        for number in range(KEY_COUNT):
            put(number)
        await answered.wait()
        await node.stop()

    asyncio.run(main())
    return directory


@pytest.fixture
def directory(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "node1"))


def digests(directory: Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file() and path.name != "LOCK"]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_it_tells_what_is_there_and_changes_nothing(raftkv: Command, directory: Path) -> None:
    before = digests(directory)
    done = raftkv("inspect", str(directory), "--json")
    report = json.loads(done.out)
    assert done.exit_code == 0
    assert report["identity"]["node_id"] == "node1"
    assert report["state"]["keys"] == KEY_COUNT
    assert report["state"]["revision"] == KEY_COUNT + 1
    assert report["log"]["entries"].startswith("1 to ")
    assert report["records"]["entry"] >= 2
    assert report["problems"] == []
    assert digests(directory) == before


def test_it_prints_tables_for_people_and_every_record_on_request(raftkv: Command, directory: Path) -> None:
    assert "Every checksum is right" in raftkv("inspect", str(directory)).out
    assert "ENTRY       ok" in raftkv("inspect", str(directory), "--records").out


def test_a_changed_byte_in_the_log_is_found_with_file_and_offset(raftkv: Command, directory: Path) -> None:
    segment = min((directory / "generation-1" / "wal").glob("*.wal"))
    offset = segment.read_bytes().index(b"key-7")
    flip(segment, offset)
    done = raftkv("inspect", str(directory), "--json")
    problems = json.loads(done.out)["problems"]
    assert done.exit_code == 7
    assert any(str(segment) in problem and "at offset" in problem for problem in problems)
    # The other half is still read.
    assert json.loads(done.out)["state"]["keys"] == KEY_COUNT


def test_a_changed_byte_in_the_state_is_found(raftkv: Command, directory: Path) -> None:
    table = max((directory / "generation-1" / "state").glob("*.sst"), key=lambda path: path.stat().st_size)
    flip(table, 40)
    done = raftkv("inspect", str(directory))
    assert done.exit_code == 7
    assert "state: " in done.out


def test_a_directory_in_use_is_refused(raftkv: Command, directory: Path) -> None:
    opened = DataDirectory.open(directory, "node1")
    try:
        done = raftkv("inspect", str(directory))
    finally:
        opened.close()
    assert done.exit_code == 7
    assert "in use" in done.err


def test_a_directory_that_is_not_ours_is_refused_and_stays_empty(raftkv: Command, tmp_path: Path) -> None:
    done = raftkv("inspect", str(tmp_path))
    assert (done.exit_code, list(tmp_path.iterdir())) == (7, [])
    assert "not a raftkv data directory" in done.err
