"""What one frame between two nodes costs: `python -m bench.transport [frames]`.

Two processes on the loopback, one connection each way, as between two members. `alone` sends a frame and
waits for the answer, so every frame pays for its own system calls and wake-ups; `batch` sends 16 frames in one
turn of the loop, as a busy leader does. Figures are microseconds of processor time a frame, in both
processes together and whole: sending, receiving and the loop's own work.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.connection
import statistics
import sys
import time
from collections.abc import AsyncIterator

import uvloop

from raftkv.transport import PeerIdentity, Transport

BATCH = 16
REPEATS = 3


class Echo:
    """Counts frames; member 2 answers the last of each batch."""

    def __init__(self, member_id: int) -> None:
        self.member_id = member_id
        self.transport: Transport | None = None
        self.answered = asyncio.Event()

    def on_frame(self, sender: int, kind: int, payload: bytes) -> None:
        if self.member_id == 1:
            self.answered.set()
        elif kind == 1 and self.transport is not None:
            self.transport.send(sender, 1, payload)

    def on_unreachable(self, member_id: int) -> None:
        pass

    def accept_peer(self, _peer: PeerIdentity) -> str:
        return ""

    async def on_call(self, _kind: int, _payload: bytes) -> bytes:
        return str(time.process_time()).encode()

    async def on_snapshot(self, sender: int, chunks: AsyncIterator[bytes]) -> None:
        pass


async def start(member_id: int, pipe: multiprocessing.connection.Connection) -> tuple[Echo, str]:
    echo = Echo(member_id)
    echo.transport = Transport(PeerIdentity(1, member_id, f"node{member_id}"), echo)
    pipe.send(await echo.transport.start("127.0.0.1", 0))
    address = f"127.0.0.1:{await asyncio.to_thread(pipe.recv)}"
    echo.transport.set_peers({3 - member_id: address})
    return echo, address


async def serve(pipe: multiprocessing.connection.Connection) -> None:
    echo, _ = await start(2, pipe)
    await asyncio.to_thread(pipe.recv)
    assert echo.transport is not None
    await echo.transport.stop()


def serve_in_process(pipe: multiprocessing.connection.Connection) -> None:
    uvloop.run(serve(pipe))


async def measure(echo: Echo, address: str, size_bytes: int, batch: int, frame_count: int) -> float:
    """Processor microseconds a frame sent; an answer counts as a frame too when each frame is answered."""
    transport = echo.transport
    assert transport is not None
    payload = bytes(size_bytes)
    before = time.process_time() + float(await transport.call(address, 0, b"", 5.0))
    for _ in range(frame_count // batch):
        echo.answered.clear()
        for _ in range(batch - 1):
            transport.send(2, 0, payload)
        transport.send(2, 1, payload)
        await echo.answered.wait()
    spent = time.process_time() + float(await transport.call(address, 0, b"", 5.0)) - before
    return spent / (frame_count // batch * (batch + 1)) * 1e6


async def main(pipe: multiprocessing.connection.Connection, frame_count: int) -> None:
    echo, address = await start(1, pipe)
    await measure(echo, address, 100, 1, 1_000)
    for size_bytes in (100, 5_000, 100_000):
        for batch in (1, BATCH):
            count = frame_count if size_bytes < 100_000 else frame_count // 10
            spent = [await measure(echo, address, size_bytes, batch, count) for _ in range(REPEATS)]
            name = "alone" if batch == 1 else "batch"
            print(f"{size_bytes:>7} bytes {name}: {statistics.median(spent):6.2f} us a frame, send and receive")
    pipe.send(None)
    assert echo.transport is not None
    await echo.transport.stop()


if __name__ == "__main__":
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=serve_in_process, args=(theirs,))
    process.start()
    uvloop.run(main(ours, int(sys.argv[1]) if len(sys.argv) > 1 else 30_000))
    process.join()
