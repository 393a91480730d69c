"""A start either gives a running node or leaves nothing behind: no file, no lock, no thread, no port."""

from __future__ import annotations

import asyncio
import shutil
import socket
import threading
from pathlib import Path

import pytest

from raftkv.errors import CorruptData, DataDirectoryError, StorageError
from raftkv.runtime import InitialMember, Node
from tests.ports import free_port
from tests.runtime.faults import FailingFiles
from tests.runtime.nodes import cluster_in, get, put, small_settings, until


def log_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("raftkv-")]


async def starts_again(directory: Path) -> None:
    """What was left open would be found: by the lock of the directory, or by RocksDB's own."""
    assert log_threads() == []
    node = await Node.start(small_settings(directory, "node1"))
    try:
        await until(lambda: node.is_ready, "it leads itself")
        await put(node, "k", "1")
        assert await get(node, "k") == "1"
    finally:
        await node.stop()
    assert log_threads() == []


def test_a_port_in_use_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            with pytest.raises(OSError, match="Address already in use"):
                await Node.start(small_settings(tmp_path, "node1", raft_port=taken.getsockname()[1]))
        await starts_again(tmp_path)

    asyncio.run(main())


def test_a_start_that_is_cancelled_anywhere_leaves_nothing_open(tmp_path: Path) -> None:
    async def main() -> None:
        for turns in (0, 1, 2, 3, 5, 8, 13, 21):
            starting = asyncio.create_task(Node.start(small_settings(tmp_path, "node1")))
            for _ in range(turns):
                await asyncio.sleep(0)
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            assert log_threads() == []
        await starts_again(tmp_path)

    asyncio.run(main())


def test_a_start_that_is_cancelled_while_it_asks_the_others_leaves_nothing_open(tmp_path: Path) -> None:
    """SIGTERM while a first node waits for an answer of another one."""

    async def main() -> None:
        asked = asyncio.Event()

        async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            asked.set()
            await reader.read()
            writer.close()

        silent = await asyncio.start_server(hang, "127.0.0.1", 0)
        address = f"127.0.0.1:{silent.sockets[0].getsockname()[1]}"
        raft_port = free_port()
        listed = (InitialMember("node1", f"127.0.0.1:{raft_port}"), InitialMember("node2", address))
        settings = small_settings(tmp_path, "node1", raft_port=raft_port, initial_cluster=listed)
        starting = asyncio.create_task(Node.start(settings))
        await asked.wait()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        silent.close()
        await silent.wait_closed()
        await starts_again(tmp_path)

    asyncio.run(main())


def test_a_log_that_cannot_be_written_at_the_first_start_is_named_and_nothing_is_left_open(tmp_path: Path) -> None:
    async def main() -> None:
        files = FailingFiles()
        files.fail("write")
        with pytest.raises(StorageError, match="No space left"):
            await Node.start(small_settings(tmp_path, "node1"), files=files)
        await starts_again(tmp_path)

    asyncio.run(main())


def test_a_damaged_log_is_refused_by_file_and_offset_and_nothing_is_left_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_in(tmp_path) as cluster:
            node = await cluster.start("node1")
            await until(lambda: node.is_ready, "it leads itself")
            for i in range(20):
                await put(node, f"key{i}", "v" * 100)
            segment = min(node.directory.current.wal_directory.glob("*.wal"))
            await cluster.stop("node1")
            data = bytearray(segment.read_bytes())
            position = data.index(b"v" * 100)
            data[position] ^= 1
            segment.write_bytes(data)
            for _ in range(2):
                with pytest.raises(CorruptData) as caught:
                    await Node.start(small_settings(tmp_path, "node1"))
                assert caught.value.path == str(segment)
            data[position] ^= 1
            segment.write_bytes(data)
        await starts_again(tmp_path)

    asyncio.run(main())


def test_state_and_log_of_different_times_are_refused(tmp_path: Path) -> None:
    """A state restored from an older backup than the log's would skip entries."""

    async def main() -> None:
        async with cluster_in(tmp_path) as cluster:
            node = await cluster.start("node1")
            await until(lambda: node.is_ready, "it leads itself")
            await put(node, "k", "1")
            generation = node.directory.current
            await cluster.stop("node1")
            for part in generation.wal_directory.iterdir():
                part.unlink()
            with pytest.raises(DataDirectoryError, match="mixed"):
                await Node.start(small_settings(tmp_path, "node1"))
            assert log_threads() == []

    asyncio.run(main())


def test_a_state_of_another_cluster_is_refused_though_as_many_entries_were_applied(tmp_path: Path) -> None:
    """Its values would be served as ours. The term of the last entry tells, for it is in the state as well."""

    async def state_of(node_id: str, *, is_restarted: bool) -> Path:
        """Of a stopped node that has applied five entries, the last one in the term of its last start."""
        async with cluster_in(tmp_path) as cluster:
            node = await cluster.start(node_id)
            await until(lambda: node.is_ready, "it leads itself")
            if is_restarted:
                await cluster.stop(node_id)
                node = await cluster.start(node_id)
                await until(lambda: node.is_ready, "it leads itself again")
            for number in range(5 - node.replica.machine.last_applied):
                await put(node, f"{node_id}-{number}", "1")
            assert node.replica.machine.last_applied == 5
            return node.directory.current.state_directory

    async def main() -> None:
        own, other = await state_of("node1", is_restarted=False), await state_of("node2", is_restarted=True)
        shutil.rmtree(own)
        shutil.copytree(other, own)
        with pytest.raises(DataDirectoryError, match=r"entry 5 of term 2.* of term 1: .* mixed"):
            await Node.start(small_settings(tmp_path, "node1"))
        assert log_threads() == []

    asyncio.run(main())


def test_a_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster_in(tmp_path) as cluster:
            await cluster.start("node1")
            await cluster.stop("node1")
            with pytest.raises(DataDirectoryError, match="belongs to node 'node1'"):
                await Node.start(small_settings(tmp_path, "node2", data_dir=tmp_path / "node1"))
        await starts_again(tmp_path)

    asyncio.run(main())
