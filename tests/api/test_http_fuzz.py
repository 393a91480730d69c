"""No input gets a 500, and none ends the server: requests damaged at random, on both lanes."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.api.wire import LANES, World, play, request, store

CHUNKS = b'15\r\n{"key":"a","value":1}\r\n0\r\n\r\n'
GOOD = [
    store("key", b'{"a":[1,2,"x"]}'),
    request("GET", "/store/key?consistency=linearizable"),
    request("DELETE", "/store/k%20y/"),
    request("POST", "/raft/join", b'{"node_id":"n","raft_address":"h:1"}'),
    request("GET", "/raft/stats"),
    request("GET", "/debug/pprof/cmdline"),
    b"POST /store HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + CHUNKS,
]


def damaged(choice: random.Random) -> bytes:
    data = bytearray(choice.choice(GOOD) + choice.choice(GOOD))
    for _ in range(choice.randint(1, 6)):
        at = choice.randrange(len(data))
        match choice.randrange(4):
            case 0:
                data[at] = choice.randrange(256)
            case 1:
                del data[at : at + choice.randint(1, 20)]
                data += b"x"
            case 2:
                data[at:at] = data[at : at + choice.randint(1, 40)]
            case _:
                data[at:at] = choice.randbytes(choice.randint(1, 8))
    return bytes(data)


@pytest.mark.parametrize("lane", LANES)
def test_damaged_requests(lane: str, caplog: pytest.LogCaptureFixture) -> None:
    seed = 20150  # change it, or loop over it, to look further
    choice = random.Random(seed)

    async def one(world: World, data: bytes) -> None:
        client = await world.connect()
        client.writer.write(data)
        client.writer.write_eof()
        answers = await client.closed()
        assert b"HTTP/1.1 500" not in answers, data
        client.close()

    async def scenario(world: World) -> None:
        for _ in range(15):
            await asyncio.gather(*(one(world, damaged(choice)) for _ in range(40)))
        assert (await world.raw(store("a", b"1"))).status == 200

    play(scenario, lane)
    assert not caplog.records or max(record.levelname for record in caplog.records) == "INFO"
