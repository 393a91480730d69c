"""Asked of the kernel: is a write on the disks of a majority before it is acknowledged? And when a disk is full?"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.cluster import Cluster
from tests.e2e.node import Node
from tests.e2e.waiting import eventually, eventually_answers

# 1700000000.123456 fdatasync(7) = 0 <0.000123>, in two lines when another thread's call came between; or the kernel
# was told to sync in the background (io_submit of IOCB_CMD_FDSYNC), and io_getevents says that it has.
_TRACED = "trace=fdatasync,fsync,io_submit,io_getevents"
_LINE = re.compile(r"(\d+\.\d+) (<\.\.\. )?(fdatasync|fsync|io_getevents)\b(.*)<(\d+\.\d+)>")


def sync_ends(trace: Path) -> list[float]:
    """When the process learned of each successful sync, in seconds since the epoch."""
    text = trace.read_text()
    assert not re.search(r"aio_lio_opcode=(?!IOCB_CMD_FDSYNC)", text), (
        "io_getevents may tell of other things than syncs"
    )
    ends = []
    for at, is_resumed, call, rest, took in _LINE.findall(text):
        if (" res=0," in rest and " = 1" in rest) if call == "io_getevents" else " = 0 " in rest:
            ends.append(float(at) + (0.0 if is_resumed else float(took)))
    return ends


@contextmanager
def traced(nodes: list[Node], directory: Path) -> Iterator[list[Path]]:
    paths = [directory / f"{node.node_id}.strace" for node in nodes]
    options = ["-f", "-qq", "-ttt", "-T", "-e", _TRACED]
    tracers = [
        subprocess.Popen(["strace", *options, "-o", str(path), "-p", str(node.pid)], stderr=subprocess.DEVNULL)
        for node, path in zip(nodes, paths, strict=True)
    ]
    try:
        for node, tracer in zip(nodes, tracers, strict=True):
            status = Path(f"/proc/{node.pid}/status")
            is_traced = eventually(
                lambda status=status, tracer=tracer: (  # type: ignore[misc]
                    "refused" if tracer.poll() is not None else "TracerPid:\t0\n" not in status.read_text()
                ),
                f"{node.node_id} is traced",
            )
            if is_traced == "refused":
                pytest.skip("strace may not attach to processes here")
        yield paths
    finally:
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)
            tracer.wait()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.parametrize("count", [1, 3])
def test_a_majority_has_synced_every_write_before_it_is_acknowledged(
    cluster: Cluster, tmp_path: Path, count: int
) -> None:
    """One write at a time, so that no sync can stand for two writes; on a single node too."""
    nodes = cluster.form(count)
    leader = cluster.leader()
    spans = []
    with traced(nodes, tmp_path) as traces, leader.connect() as connection:
        for number in range(50):
            start = time.time()
            assert connection.request("POST", "/store", {"key": f"key{number}", "value": number}).status == 200
            spans.append((start, time.time()))
    ends = [sync_ends(trace) for trace in traces]
    for start, stop in spans:
        synced = sum(any(start <= end <= stop for end in node) for node in ends)
        assert synced >= count // 2 + 1, "acknowledged before a majority had it on disk"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 96 MiB in memory."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a small disk")
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96m", "tmpfs", str(directory)], check=False)
    if mounted.returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_full_disk_refuses_writes_early_and_heals(cluster: Cluster, small_disk: Path) -> None:
    node = cluster.add("node1", segment_size_bytes=1 << 20, write_buffer_bytes=4 << 20, disk_reserve_bytes=16 << 20)
    node.data_dir = small_disk / "data"
    node.start().wait_ready()
    assert node.store("before", 1).status == 200
    assert node.store("victim", 1).status == 200

    ballast = small_disk / "ballast"
    with ballast.open("wb") as file:
        free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
        os.posix_fallocate(file.fileno(), 0, free - (8 << 20))  # half of the reserve is left

    refused = eventually_answers(lambda: node.store("during", 1), 507, "writes are refused")
    assert refused.outcome == "rejected"
    assert refused.json["code"] == "disk_full"
    assert node.fetch("before").data["value"] == 1
    assert node.delete("victim").status == 200, "deletes go on"

    ballast.unlink()
    eventually(lambda: node.store("after", 1).status == 200, "writes work again")
    node.kill()
    node.start().wait_ready()
    assert node.fetch("before").data["value"] == 1
    assert node.fetch("after").data["value"] == 1
    assert node.fetch("victim").status == 404
