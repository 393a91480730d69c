"""Is every acknowledged write on the disks of a majority? Asked of the kernel, not of the program.

With one connection there is nothing to group: each put must see an `fdatasync` end on at least two of three
nodes between its request and its answer. strace writes the wall clock time of each call of each node.
"""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from bench.processes import BenchError
from bench.raftkv_nodes import RaftkvCluster
from bench.report import Report, Row

# 1700000000.123456 fdatasync(7) = 0 <0.000123>, perhaps in two parts when threads interleave; or the kernel was told
# to sync in the background (io_submit of IOCB_CMD_FDSYNC), and io_getevents says that it has.
_TRACED = "trace=fdatasync,fsync,io_submit,io_getevents"
_LINE = re.compile(r"(\d+\.\d+) (<\.\.\. )?(fdatasync|fsync|io_getevents)\b(.*)<(\d+\.\d+)>")


def measure(directory: Path, report: Report, write_count: int = 200) -> None:
    if shutil.which("strace") is None:
        report.note("Durability was not checked: strace is not installed (apt-get install strace).")
        return
    cluster = RaftkvCluster(directory / "durability")
    try:
        covered = _covered(cluster, directory, write_count)
    finally:
        cluster.stop()
    report.add(
        Row(
            "acknowledged writes with fdatasync on a majority first",
            f"{covered} of {write_count}",
            target="all",
            is_met=covered == write_count,
        )
    )


def _covered(cluster: RaftkvCluster, directory: Path, write_count: int) -> int:
    traces = [directory / f"strace.{node.node_id}" for node in cluster.nodes]
    tracers = [
        subprocess.Popen(["strace", "-f", "-qq", "-ttt", "-T", "-e", _TRACED, "-o", str(path), "-p", str(child.pid)])
        for path, child in zip(traces, cluster.children, strict=True)
    ]
    leader = cluster.leader()
    try:
        _wait_traced(cluster)
        spans = []
        for number in range(write_count):
            start = time.time()
            status, body = leader.call("POST", "/store", {"key": f"durable{number}", "value": number})
            if status != 200:
                raise BenchError(f"a put answered {status}: {body.decode()}")
            spans.append((start, time.time()))
    finally:
        for tracer in tracers:
            tracer.send_signal(signal.SIGINT)  # strace lets go of the process and ends
            tracer.wait()
    ends = [sync_ends(path) for path in traces]
    return sum(sum(any(start <= end <= stop for end in node) for node in ends) >= 2 for start, stop in spans)


def _wait_traced(cluster: RaftkvCluster) -> None:
    """Until the kernel names a tracer for every node."""
    for child in cluster.children:
        deadline = time.monotonic() + 10
        while "TracerPid:\t0" in Path(f"/proc/{child.pid}/status").read_text():
            if time.monotonic() > deadline:
                raise BenchError("strace could not attach (is ptrace allowed here?)")
            time.sleep(0.01)


def sync_ends(trace: Path) -> list[float]:
    """When the process learned of each successful sync, in seconds since the epoch."""
    text = trace.read_text()
    if re.search(r"aio_lio_opcode=(?!IOCB_CMD_FDSYNC)", text):
        raise BenchError("io_getevents may tell of other things than syncs")
    ends = []
    for at, is_resumed, call, rest, took in _LINE.findall(text):
        if (" res=0," in rest and " = 1" in rest) if call == "io_getevents" else " = 0 " in rest:
            ends.append(float(at) + (0.0 if is_resumed else float(took)))  # resumed: the line began at its end
    return ends
