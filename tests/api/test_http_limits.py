"""What a client may cost. A stalled or malicious one loses its own connection and nothing else."""

from __future__ import annotations

import asyncio
import socket

import pytest

from raftkv.api.http.limits import LINGER_MAX_BYTES
from tests.api.wire import LANES, Client, World, play, request, store

pytestmark = pytest.mark.parametrize("lane", LANES)

FAST = {"body_timeout_ms": 100, "idle_timeout_ms": 100}


@pytest.mark.parametrize("header", ["X-Big", "User-Agent"])
@pytest.mark.parametrize(("size", "status"), [(4000, 200), (4096, 431), (9000, 431), (200_000, 431)])
def test_a_long_header_is_refused(lane: str, header: str, size: int, status: int) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b"1"))
        reply = await world.ask("GET", "/store/a", **{header.replace("-", "_"): "x" * size})
        assert reply.status == status
        if status == 431:
            assert reply.json["code"] == "header_too_large"

    play(scenario, lane)


def test_many_small_headers_are_refused_too(lane: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("GET", "/store/a", **{f"x_{number}": "y" for number in range(2000)})
        assert reply.status == 431

    play(scenario, lane)


def test_an_endless_header_is_cut_off(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(b"GET /store/a HTTP/1.1\r\nX-Big: ")
        for _ in range(20):
            client.writer.write(b"x" * 1000)
            await asyncio.sleep(0)
        reply = await client.reply()
        assert reply.status == 431
        client.writer.write_eof()
        assert await client.closed() == b""

    play(scenario, lane)


@pytest.mark.parametrize("size", [3000, 300_000])
def test_a_long_url_is_refused(lane: str, size: int) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("GET", "/store/a?x=" + "y" * size)
        assert (reply.status, reply.json["code"]) == (414, "url_too_long")

    play(scenario, lane)


def test_a_large_body_is_refused_from_its_length_alone(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 20971520\r\n\r\n"
        )
        reply = await client.reply()
        assert (reply.status, reply.json["code"], reply.headers["connection"]) == (413, "too_large", "close")

    play(scenario, lane)


def test_a_body_that_is_sent_anyway_does_not_lose_the_answer(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        body = b"x" * 900_000
        client.writer.write(request("POST", "/store", body))
        assert (await client.reply()).status == 413
        client.writer.write_eof()
        assert await client.closed() == b""

    play(scenario, lane)


async def flood(client: Client, size: int) -> None:
    for _ in range(size // 10_000):
        await client.send(b"x" * 10_000)
        await asyncio.sleep(0)


def test_a_chunked_body_without_end_is_refused_at_the_limit(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(15):
            client.writer.write(b"2710\r\n" + b"x" * 10_000 + b"\r\n")
        assert (await client.reply()).status == 413
        # what is sent after that is discarded, but not for ever
        with pytest.raises(ConnectionError):
            await flood(client, LINGER_MAX_BYTES * 2)

    play(scenario, lane)


def test_tiny_chunks_do_not_multiply_memory(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        client.writer.write(b"1\r\n \r\n" * 50_000)
        await world.until(lambda: any(len(c._body) > 40_000 for c in world.server._connections()))
        assert all(len(c._body_parts) == 0 for c in world.server._connections())

    play(scenario, lane)


def test_connections_over_the_limit_are_told_503(lane: str) -> None:
    async def scenario(world: World) -> None:
        kept = [await world.connect() for _ in range(3)]
        for client in kept:
            await client.send(request("GET", "/health"))
            await client.reply()
        for _ in range(100):
            refused = await world.connect()
            await refused.send(request("GET", "/health"))
            reply = await refused.reply()
            assert (reply.status, reply.json["code"]) == (503, "too_many_connections")
            assert reply.headers["connection"] == "close"
            refused.close()
        kept[0].close()
        await world.until(lambda: len(world.server._connections()) < 3)
        assert (await world.ask("GET", "/health")).status == 200
        assert world.server.metrics.refused_connections == 100

    play(scenario, lane, max_connections=3)


def test_refusals_are_few_at_once(lane: str) -> None:
    async def scenario(world: World) -> None:
        await (await world.connect()).send(request("GET", "/health"))
        await world.until(world.server._connections)
        for _ in range(200):
            await world.connect()
        await world.until(lambda: world.server.metrics.refused_connections == 200)
        assert len(world.server._refusals._open) <= 64

    play(scenario, lane, max_connections=1)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /store/a HTTP/1.1\r\nHost:", 408),
        (b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{", 408),
        (b"GET /store/a HTTP/1.1\r\n\r\nGET /stor", 408),
        (b"GE", None),
        (b"", None),
        (b"GET /store/a HTTP/1.1\r\nHost: x\r\n\r\n", None),
    ],
)
def test_a_request_that_stalls_is_timed_out_and_an_idle_connection_closed(
    lane: str, data: bytes, status: int | None
) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(data)
        if b"\r\n\r\n" in data and b"Content-Length" not in data:
            assert (await client.reply()).status == 404
        if status is not None:
            reply = await client.reply()
            assert (reply.status, reply.json["code"], reply.json["outcome"]) == (408, "request_timeout", "rejected")
        assert await client.closed() == b""

    play(scenario, lane, **FAST)


def test_a_connection_that_never_sends_a_byte_has_the_time_of_an_idle_one(lane: str) -> None:
    async def scenario(world: World) -> None:
        silent, begun = await world.connect(), await world.connect()
        await begun.send(b"GE")
        await world.until(lambda: sum(c._is_silent for c in world.server._connections()) == 1)
        start_s = asyncio.get_running_loop().time()
        world.server._sweep.look(start_s)
        world.server._sweep.look(start_s + 11)  # over body_timeout_ms
        assert await begun.closed() == b""
        await world.until(lambda: len(world.server._connections()) == 1)
        world.server._sweep.look(start_s + 29)
        await silent.send(request("GET", "/health"))
        assert (await silent.reply()).status == 200

    play(scenario, lane, body_timeout_ms=10_000, idle_timeout_ms=30_000)


def test_a_request_that_drips_is_timed_out_all_the_same(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()

        async def drip() -> None:
            client.writer.write(b"GET /store/a HTTP/1.1\r\n")
            while True:
                client.writer.write(b"X: y\r\n")
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert (await client.reply()).status == 408
        dripping.cancel()

    play(scenario, lane, **FAST)


def test_a_slow_answer_of_the_node_is_waited_for(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        world.node.hold = True
        await client.send(store("a", b"1"))
        await world.held(1)
        for now in range(0, 1_000_000, 1000):
            world.server._sweep.look(float(now))
        world.node.release()
        assert (await client.reply()).status == 200
        world.server._sweep.look(2_000_000.0)
        world.server._sweep.look(2_000_031.0)  # idle for longer than idle_timeout_ms
        assert await client.closed() == b""

    play(scenario, lane)


def test_a_client_that_takes_no_answers_is_stopped_and_dropped(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("big", b'"' + b"v" * 90_000 + b'"'))
        loop = asyncio.get_running_loop()
        with socket.create_connection(world.address) as stalled:
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            stalled.setblocking(False)
            await world.until(world.server._connections)
            for _ in range(2):
                await loop.sock_sendall(stalled, request("GET", "/store/big") * 2000)
                await asyncio.sleep(0.01)
            connection = world.server._connections()[0]
            assert connection._is_reading_paused
            assert connection.transport.get_write_buffer_size() < 1_000_000
            assert (await world.ask("GET", "/health")).status == 200
            await world.until(lambda: connection not in world.server._connections())

    play(scenario, lane, body_timeout_ms=300)


def test_a_slow_reader_gets_everything_in_order(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("big", b'"' + b"v" * 90_000 + b'"'))
        client = await world.connect()
        client.writer.write((request("GET", "/store/big") + request("GET", "/health")) * 50)
        for _ in range(50):
            assert len((await client.reply()).body) > 90_000
            assert (await client.reply()).json == {"status": "ok"}

    play(scenario, lane)
