"""HTTP itself: order, framing, ends. Every test runs against both lanes."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.api.wire import LANES, Client, World, play, request, store

pytestmark = pytest.mark.parametrize("lane", LANES)


def test_pipelined_requests_see_each_other_and_are_answered_in_order(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        parts = []
        for number in range(200):
            parts += [store("k", b"%d" % number), request("GET", "/store/k"), request("GET", "/health")]
        await client.send(b"".join(parts))
        for number in range(200):
            assert (await client.reply()).json["data"]["value"] == number
            assert (await client.reply()).json["data"]["value"] == number
            assert (await client.reply()).json == {"status": "ok"}

    play(scenario, lane)


def test_a_fast_answer_does_not_overtake_a_slow_one(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        world.node.hold = True
        await client.send(store("k", b"1") + request("GET", "/store/k") + request("GET", "/nowhere"))
        await world.held(1)
        await client.send(request("DELETE", "/store/k") + request("GET", "/store/k"))
        world.node.hold = False
        world.node.release()
        statuses = [(await client.reply()).status for _ in range(5)]
        assert statuses == [200, 200, 404, 200, 404]

    play(scenario, lane)


def test_an_error_in_the_framing_is_answered_after_what_came_before_it(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        world.node.hold = True
        await client.send(store("k", b"1") + b"garbage\r\n\r\n")
        await world.held(1)
        world.node.release()
        assert (await client.reply()).status == 200
        reply = await client.reply()
        assert (reply.status, reply.headers["connection"]) == (400, "close")
        assert await client.closed() == b""

    play(scenario, lane)


@pytest.mark.parametrize(
    "data",
    [
        b"garbage\r\n\r\n",
        b"GET\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /store/a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /store/a HTTP/9.9\r\nHost: x\r\n\r\n",
        b"GET /store/a HTTP/1.1\r\nHost x\r\n\r\n",
        b"GET /store/a HTTP/1.1\r\nA\x00B: x\r\n\r\n",
        b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
        b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /store HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
    ids=lambda data: data[:30].decode("latin-1").replace("\r\n", " "),
)
def test_what_is_not_http_gets_400_in_json_and_the_end(lane: str, data: bytes) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(data)
        reply = await client.reply()
        assert (reply.status, reply.json["code"]) == (400, "malformed_request")
        assert reply.headers["connection"] == "close"
        assert await client.closed() == b""
        assert (await world.ask("GET", "/health")).status == 200

    play(scenario, lane)


def test_odd_targets_are_no_error_of_ours(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b"1"))
        assert (await world.raw(b"GET http://other/store/a?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        assert (await world.raw(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n")).status == 404
        assert (await world.raw(b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n")).status in {400, 404}
        assert (await world.raw(b"CONNECT example.com:80 HTTP/1.1\r\nHost: x\r\n\r\n")).status in {400, 404, 405}
        assert (await world.raw(b"GET /store/a#b HTTP/1.1\r\nHost: x\r\n\r\n")).status in {200, 400, 404}
        assert (await world.raw(b"GET /%ff%00 HTTP/1.1\r\nHost: x\r\n\r\n")).status == 404

    play(scenario, lane)


def test_bodies_may_come_in_any_pieces(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        data = store("k", b'"' + b"v" * 40 + b'"')
        for piece in (data[i : i + 1] for i in range(len(data))):
            await client.send(piece)
            await asyncio.sleep(0)
        assert (await client.reply()).status == 200
        head, body = data.split(b"\r\n\r\n")
        await client.send(head + b"\r\n\r\n")
        await world.until(lambda: any(c._in_body for c in world.server._connections()))
        await client.send(body)
        assert (await client.reply()).status == 200
        big = store("k", b'"' + b"v" * 99_000 + b'"')
        await client.send(big + big)
        assert [(await client.reply()).status for _ in range(2)] == [200, 200]

    play(scenario, lane)


def chunked(*parts: bytes) -> bytes:
    head = b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def test_chunked_bodies(lane: str) -> None:
    async def scenario(world: World) -> None:
        body = json.dumps({"key": "k", "value": "v" * 3000}).encode()
        client = await world.connect()
        await client.send(chunked(body) + chunked(*[body[i : i + 1] for i in range(len(body))]))
        assert [(await client.reply()).status for _ in range(2)] == [200, 200]
        assert json.loads(world.node.data[b"k"].value) == "v" * 3000

    play(scenario, lane)


def test_expect_100_continue(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        body = b'{"key":"a","value":1}'
        head = b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n"
        for _ in range(2):
            await client.send(b"%bContent-Length: %d\r\n\r\n" % (head, len(body)))
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(body)
            assert (await client.reply()).status == 200
        # behind a request that is not answered yet: 100 must wait for its turn
        world.node.hold = True
        await client.send(store("b", b"1") + b"%bContent-Length: %d\r\n\r\n" % (head, len(body)))
        await world.held(1)
        world.node.hold = False
        world.node.release()
        assert (await client.reply()).json["data"]["key"] == "b"
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(body)
        assert (await client.reply()).status == 200
        # a client that does not wait
        await client.send(b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), body))
        assert (await client.reply()).status == 200
        # too large: refused without the body
        await client.send(b"%bContent-Length: 10000000\r\n\r\n" % head)
        reply = await client.reply()
        assert (reply.status, reply.interim) == (413, [])

    play(scenario, lane)


def test_an_unknown_expectation_is_refused(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        await client.send(
            b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nExpect: magic\r\n"
            b"Content-Length: 5\r\n\r\n"
        )
        assert (await client.reply()).status == 417

    play(scenario, lane)


def test_http_1_0_and_connection_close_end_the_connection(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b"1"))
        for data in (
            b"GET /store/a HTTP/1.0\r\n\r\n",
            b"GET /store/a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
            b"GET /store/a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: Close\r\n\r\n",
            store("a", b"2", connection="close"),
        ):
            client = await world.connect()
            await client.send(data)
            reply = await client.reply()
            assert (reply.status, reply.headers["connection"]) == (200, "close")
            assert await client.closed() == b""

    play(scenario, lane)


def test_a_connection_is_kept_otherwise(lane: str) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        for data in (
            store("a", b"1"),
            request("GET", "/store/a"),
            request("GET", "/health"),
            request("GET", "/store/b"),
        ):
            await client.send(data)
            assert "connection" not in (await client.reply()).headers

    play(scenario, lane)


def test_a_client_that_half_closes_still_gets_its_answer(lane: str) -> None:
    async def scenario(world: World) -> None:
        world.node.hold = True
        client = await world.connect()
        await client.send(store("a", b"1") + store("b", b"1"))
        client.writer.write_eof()
        await world.held(1)
        world.node.release()
        assert (await client.reply()).status == 200
        await world.held(1)
        world.node.release()
        assert (await client.reply()).status == 200
        assert await client.closed() == b""

    play(scenario, lane)


def test_a_client_that_is_gone_costs_nothing(lane: str) -> None:
    async def scenario(world: World) -> None:
        world.node.hold = True
        client = await world.connect()
        await client.send(store("a", b"1"))
        await world.held(1)
        client.close()
        assert (await world.ask("GET", "/health")).status == 200
        world.node.release()
        await world.until(lambda: not world.server._connections())
        assert world.node.data.keys() == {b"a"}

    play(scenario, lane)


def test_an_offer_to_upgrade_is_ignored(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b"1"))
        client = await world.connect()
        upgrade = {"connection": "Upgrade, HTTP2-Settings", "upgrade": "h2c", "HTTP2_Settings": "AAMAAABk"}
        await client.send(request("GET", "/store/a", **upgrade) + request("GET", "/health"))
        assert (await client.reply()).status == 200
        assert (await client.reply()).status == 200
        reply = await world.ask("GET", "/store/a", connection="Upgrade", upgrade="websocket")
        assert reply.status == 200
        reply = await world.raw(store("a", b"1", **upgrade))
        assert reply.status == 400

    play(scenario, lane)


async def silent_close(client: Client) -> None:
    assert await client.closed() == b""


def test_a_stopping_server_answers_what_came_in_and_closes(lane: str) -> None:
    async def scenario(world: World) -> None:
        idle, busy, fresh = await world.connect(), await world.connect(), await world.connect()
        await idle.send(request("GET", "/health"))
        await idle.reply()
        world.node.hold = True
        await busy.send(store("a", b"1") + store("b", b"1"))  # b is not begun before the stop, and never will be
        await world.held(1)
        stopping = asyncio.create_task(world.server.stop())
        await silent_close(idle)
        await silent_close(fresh)
        world.node.hold = False
        world.node.release()
        reply = await busy.reply()
        assert (reply.status, reply.headers["connection"]) == (200, "close")
        await silent_close(busy)
        assert world.node.data.keys() == {b"a"}
        await stopping
        with pytest.raises(ConnectionRefusedError):
            await world.connect()

    play(scenario, lane)


def test_a_stopping_server_does_not_wait_for_ever(lane: str) -> None:
    async def scenario(world: World) -> None:
        busy = await world.connect()
        world.node.hold = True
        await busy.send(store("a", b"1"))
        await world.held(1)
        async with asyncio.timeout(5):
            await world.server.stop()
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await busy.reply()

    play(scenario, lane, shutdown_timeout_ms=50)
