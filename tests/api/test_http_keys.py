"""The contract of the key routes. Every test runs against both lanes, and must not be able to tell them apart."""

from __future__ import annotations

import json

import pytest

from raftkv import errors
from raftkv.api.http.intake import Intake
from raftkv.kv import KeyValue
from raftkv.types import Consistency, WriteMode
from tests.api.fake_node import NOT_READY
from tests.api.wire import LANES, World, play, request, store

pytestmark = pytest.mark.parametrize("lane", LANES)


def test_store_fetch_and_delete_answer_as_the_reference(lane: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.raw(store("foo", b'"bar"'))
        assert reply.status == 200
        assert reply.json == {"message": "success persisting data", "data": {"key": "foo", "value": "bar"}}
        reply = await world.ask("GET", "/store/foo")
        assert reply.status == 200
        assert reply.json == {"message": "success fetching data", "data": {"key": "foo", "value": "bar"}}
        for _ in range(2):  # present or not
            reply = await world.ask("DELETE", "/store/foo")
            assert reply.status == 200
            assert reply.json == {"message": "success removing data", "data": {"key": "foo", "value": None}}
        reply = await world.ask("GET", "/store/foo")
        assert reply.status == 404
        assert reply.json == {"error": "key 'foo' not found", "code": "key_not_found", "outcome": "rejected"}
        assert reply.headers["content-type"] == "application/json"

    play(scenario, lane)


def test_published_curl_command_sends_two_content_types(lane: str) -> None:
    async def scenario(world: World) -> None:
        body = b'{\n  "key": "foo",\n  "value": "bar"\n}'
        types = b"Content-Type: application/json\r\nContent-Type: text/plain\r\n"
        head = b"POST /store/ HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (types, len(body))
        reply = await world.raw(head + body)
        assert reply.status == 200
        assert world.node.data[b"foo"].value == b'"bar"'
        assert (await world.ask("GET", "/store/foo/")).status == 200
        assert (await world.ask("DELETE", "/store/foo/")).status == 200
        assert not world.node.data

    play(scenario, lane)


@pytest.mark.parametrize(
    "value",
    [
        b"9007199254740993",
        b"12345678901234567890",
        b"1e400",
        b"-0",
        b"1.10",
        b"null",
        b"true",
        b'""',
        b'{"b": 1,\n "a": [ ]}',
        b'"\\u00e9\\/"',
        '"é🚀"'.encode(),
        b"[" * 200 + b"]" * 200,
        b'"' + b"x" * 60_000 + b'"',
    ],
    ids=lambda value: value[:20].decode(),
)
def test_values_come_back_exactly_as_sent(lane: str, value: bytes) -> None:
    async def scenario(world: World) -> None:
        reply = await world.raw(store("k", b" " + value + b" "))
        assert reply.body == b'{"message":"success persisting data","data":{"key":"k","value":%b}}' % value
        reply = await world.ask("GET", "/store/k")
        assert reply.body == b'{"message":"success fetching data","data":{"key":"k","value":%b}}' % value

    play(scenario, lane)


@pytest.mark.parametrize(
    ("target", "key"),
    [
        ("a/b", "a/b"),
        ("a%2Fb", "a/b"),
        ("a%2fb/", "a/b"),
        ("/a", "/a"),
        ("a//", "a/"),
        ("a%2F", "a/"),
        ("%2F", "/"),
        ("a%20b", "a b"),
        ("%20a%09", "a"),
        ("a+b", "a+b"),
        ("caf%C3%A9", "café"),
        ("%F0%9F%9A%80", "🚀"),
        (".", "."),
        ("..", ".."),
        ("%2E%2E/%2e", "../."),
        ("a%3Fb", "a?b"),
        ("a%23b", "a#b"),
        ("a%25b", "a%b"),
        ("a%252Fb", "a%2Fb"),
        ("a%22b%5C", 'a"b\\'),
        ("a%0Ab", "a\nb"),
        ("a%00b", "a\0b"),
        ("a:b@c,d;e=f!$&'()*~-_.", "a:b@c,d;e=f!$&'()*~-_."),
        ("key?x=1", "key"),
    ],
)
def test_keys_in_paths(lane: str, target: str, key: str) -> None:
    async def scenario(world: World) -> None:
        assert (await world.raw(store(key, b"1"))).json["data"]["key"] == key
        assert world.node.data.keys() == {key.encode()}
        reply = await world.ask("GET", f"/store/{target}")
        assert (reply.status, reply.json["data"]) == (200, {"key": key, "value": 1})
        reply = await world.ask("DELETE", f"/store/{target}")
        assert (reply.status, reply.json["data"]) == (200, {"key": key, "value": None})
        assert not world.node.data

    play(scenario, lane)


def test_keys_are_trimmed_of_white_space(lane: str) -> None:
    async def scenario(world: World) -> None:
        assert (await world.raw(store(" \t\u00a0foo bar\n", b"1"))).json["data"]["key"] == "foo bar"
        assert world.node.data.keys() == {b"foo bar"}

    play(scenario, lane)


def test_raw_utf8_in_a_path_is_taken_or_refused_but_never_an_error_of_ours(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("é", b"1"))
        reply = await world.raw("GET /store/é HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert reply.status in {200, 400}
        reply = await world.raw(b"GET /store/\xff HTTP/1.1\r\nHost: x\r\n\r\n")
        assert reply.status == 400

    play(scenario, lane)


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"", 400, "malformed_request"),
        (b"{", 400, "malformed_request"),
        (b'{"key":"a","value":1}x', 400, "malformed_request"),
        (b'{"key":"a","value":NaN}', 400, "malformed_request"),
        (b'{"key":"a","value":-Infinity}', 400, "malformed_request"),
        (b'{"key":"a","value":01}', 400, "malformed_request"),
        (b'{"key":"a","value":1,}', 400, "malformed_request"),
        (b'{"key":"a","value":"\xff"}', 400, "malformed_request"),
        (b'{"key":"a","value":{"\xed\xa0\x80":1}}', 400, "malformed_request"),
        (b'{"key":"\xff","value":1}', 400, "malformed_request"),
        (b'{"key":"a","value":"\x01"}', 400, "malformed_request"),
        (b"\xef\xbb\xbf" + b'{"key":"a","value":1}', 400, "malformed_request"),
        (b'{"key":"a","value":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, "malformed_request"),
        (b'{"key":"a","value":1,"x":' + b'{"a":' * 9_000 + b"1" + b"}" * 9_000 + b"}", 400, "malformed_request"),
        (b'{"key":"\\ud800","value":1}', 400, "malformed_request"),
        (b"[]", 422, "unprocessable_request"),
        (b'"foo"', 422, "unprocessable_request"),
        (b'{"value":1}', 422, "unprocessable_request"),
        (b'{"key":"a"}', 422, "unprocessable_request"),
        (b'{"key":5,"value":1}', 422, "unprocessable_request"),
        (b'{"key":null,"value":1}', 422, "unprocessable_request"),
        (b'{"key":"","value":1}', 422, "unprocessable_request"),
        (b'{"key":" \\t\\n","value":1}', 422, "unprocessable_request"),
        (b'{"key":"' + b"k" * 513 + b'","value":1}', 413, "too_large"),
        (b'{"key":"' + "é".encode() * 257 + b'","value":1}', 413, "too_large"),
        (b'{"key":"a","value":"' + b"v" * 100_000 + b'"}', 413, "too_large"),
    ],
    ids=lambda value: value[:24].decode("latin-1") if isinstance(value, bytes) else str(value),
)
def test_a_wrong_body_is_refused(lane: str, body: bytes, status: int, code: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("POST", "/store", body)
        assert (reply.status, reply.json["code"], reply.json["outcome"]) == (status, code, "rejected")
        assert reply.json["error"]
        assert not world.node.data

    play(scenario, lane)


def test_sizes_at_their_limits_are_accepted(lane: str) -> None:
    async def scenario(world: World) -> None:
        key, value = "k" * 512, b'"' + b"v" * 99_998 + b'"'
        assert (await world.raw(store(key, value))).status == 200
        assert (await world.ask("GET", f"/store/{key}")).status == 200
        assert (await world.ask("GET", "/store/" + "%6B" * 512)).status == 200
        # the same, in the longest way to write it
        body = b'{"key":"' + b"\\u006b" * 512 + b'","value":' + value + b"}"
        assert (await world.ask("POST", "/store", body)).status == 200
        for target in ("k" * 513, "%6B" * 513):
            reply = await world.ask("GET", f"/store/{target}")
            assert (reply.status, reply.json["code"]) == (413, "too_large")

    play(scenario, lane)


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("", 415),
        ("application/jsonx", 415),
    ],
)
def test_only_json_is_taken(lane: str, content_type: str, status: int) -> None:
    async def scenario(world: World) -> None:
        reply = await world.raw(store("a", b"1", content_type=content_type))
        assert reply.status == status
        assert bool(world.node.data) == (status == 200)
        if status == 415:
            assert reply.json["code"] == "unsupported_media_type"

    play(scenario, lane)


def test_a_missing_content_type_is_refused(lane: str) -> None:
    async def scenario(world: World) -> None:
        body = b'{"key":"a","value":1}'
        reply = await world.raw(b"POST /store HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert reply.status == 415

    play(scenario, lane)


@pytest.mark.parametrize(
    ("target", "status"),
    [("/store/%20", 422), ("/store//", 422), ("/store/%zz", 400), ("/store/a%2", 400), ("/store/%FF", 400)],
)
def test_a_wrong_key_in_the_path_is_refused(lane: str, target: str, status: int) -> None:
    async def scenario(world: World) -> None:
        for method in ("GET", "DELETE"):
            assert (await world.ask(method, target)).status == status

    play(scenario, lane)


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("GET", "/store", "POST"),
        ("DELETE", "/store/", "POST"),
        ("PUT", "/store/a", "DELETE, GET, HEAD"),
        ("POST", "/store/a", "DELETE, GET, HEAD"),
        ("OPTIONS", "/store/a", "DELETE, GET, HEAD"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(lane: str, method: str, target: str, allow: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask(method, target)
        assert (reply.status, reply.headers["allow"]) == (405, allow)
        assert reply.json["code"] == "method_not_allowed"

    play(scenario, lane)


def test_head_answers_as_get_without_the_body(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b'"x"'))
        got, head = await world.ask("GET", "/store/a"), await world.ask("HEAD", "/store/a")
        assert (head.status, head.headers["content-length"]) == (200, str(len(got.body)))
        assert (await world.ask("HEAD", "/store/b")).status == 404

    play(scenario, lane)


def test_answers_say_where_the_node_stands(lane: str) -> None:
    async def scenario(world: World) -> None:
        world.node.move(revision=7, applied_index=9, current_term=4, leader_node_id="node2")
        reply = await world.raw(store("a", b"1"))
        assert reply.headers["x-raftkv-revision"] == "8"
        expected = {
            "x-raftkv-revision": "8",
            "x-raftkv-applied-index": "10",
            "x-raftkv-term": "4",
            "x-raftkv-leader": "node2",
        }
        for target in ("/store/a", "/store/missing"):
            reply = await world.ask("GET", target)
            assert expected.items() <= reply.headers.items()
        world.node.move(revision=20, leader_node_id="", is_marked_stale=True)
        reply = await world.ask("GET", "/store/a")
        assert reply.headers["x-raftkv-revision"] == "20"
        assert reply.headers["x-raftkv-consistency"] == "local"
        assert reply.headers["x-raftkv-stale"] == "true"
        assert "x-raftkv-leader" not in reply.headers
        assert "date" in reply.headers

    play(scenario, lane)


def test_a_write_tells_its_own_revision_although_later_ones_are_applied(lane: str) -> None:
    async def scenario(world: World) -> None:
        world.node.hold = True
        clients = [await world.connect() for _ in range(2)]
        for number, client in enumerate(clients):
            await client.send(store(f"k{number}", b"1"))
            await world.held(number + 1)
        world.node.release()
        assert [(await client.reply()).headers["x-raftkv-revision"] for client in clients] == ["1", "2"]

    play(scenario, lane)


@pytest.mark.parametrize("consistency", ["linearizable", "lease", "Linearizable"])
def test_confirmed_reads_ask_the_node(lane: str, consistency: str) -> None:
    async def scenario(world: World) -> None:
        world.node.data[b"a"] = KeyValue(b"a", b'"new"', 1, 1, 1)
        reply = await world.ask("GET", f"/store/a?consistency={consistency}")
        assert reply.json["data"] == {"key": "a", "value": "new"}
        assert reply.headers["x-raftkv-consistency"] == consistency.lower()
        reply = await world.ask("GET", f"/store/b?consistency={consistency}")
        assert (reply.status, reply.json["code"]) == (404, "key_not_found")
        wanted = Consistency(consistency.lower())
        assert world.node.calls == [("read", b"a", wanted), ("read", b"b", wanted)]

    play(scenario, lane)


def test_a_default_consistency_can_be_set_and_overruled(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.ask("GET", "/store/a")
        assert world.node.calls == [("read", b"a", Consistency.LINEARIZABLE)]
        assert (await world.ask("GET", "/store/a?consistency=local")).status == 404
        assert len(world.node.calls) == 1

    play(scenario, lane, read_consistency="linearizable")


@pytest.mark.parametrize("default", ["local", "linearizable"])
def test_a_local_read_that_is_asked_for_answers_as_one_by_default(lane: str, default: str) -> None:
    async def scenario(world: World) -> None:
        world.node.data[b"a"] = KeyValue(b"a", b'"new"', 1, 1, 1)
        reply = await world.ask("GET", "/store/a?consistency=local")
        assert (reply.status, reply.headers["x-raftkv-consistency"]) == (200, "local")
        assert reply.json == {"message": "success fetching data", "data": {"key": "a", "value": "new"}}
        assert (await world.ask("GET", "/store/a/?consistency=local")).json["data"]["key"] == "a"
        reply = await world.ask("GET", "/store/b?consistency=local")
        assert (reply.status, reply.json["code"]) == (404, "key_not_found")
        reply = await world.ask("GET", f"/store/{'k' * 513}?consistency=local")
        assert (reply.status, reply.json["code"]) == (413, "too_large")
        world.node.error = NOT_READY
        assert (await world.ask("GET", "/store/a?consistency=local")).status == 503
        assert world.node.calls == []

    play(scenario, lane, read_consistency=default)


@pytest.mark.parametrize("target", ["/store/a?consistency=local", "/store/a?consistency=linearizable"])
@pytest.mark.parametrize("default", ["local", "linearizable"])
def test_reads_of_the_common_shapes_take_the_shortcut(
    lane: str, target: str, default: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`take` makes a request object, which is what the shortcut saves; the slow lane has no other way."""
    taken: list[str] = []
    take = Intake.take

    def counted(self: Intake) -> None:
        taken.append(target)
        take(self)

    monkeypatch.setattr(Intake, "take", counted)

    async def scenario(world: World) -> None:
        world.node.data[b"a"] = KeyValue(b"a", b'"new"', 1, 1, 1)
        assert (await world.ask("GET", target)).status == 200
        assert taken == ([] if lane == "fast" else [target])

    play(scenario, lane, read_consistency=default)


@pytest.mark.parametrize("value", ["eventual", "", "local,lease"])
def test_unknown_options_are_refused(lane: str, value: str) -> None:
    async def scenario(world: World) -> None:
        reply = await world.ask("GET", f"/store/a?consistency={value}")
        assert (reply.status, reply.json["code"]) == (400, "invalid_input")
        reply = await world.raw(store("a", b"1").replace(b"/store", f"/store?write_mode={value}".encode()))
        assert (reply.status, reply.json["code"]) == (400, "invalid_input")
        assert not world.node.modes

    play(scenario, lane)


def test_the_write_mode_comes_from_query_header_or_setting(lane: str) -> None:
    async def scenario(world: World) -> None:
        await world.raw(store("a", b"1"))
        await world.raw(store("a", b"1", x_raftkv_write_mode="redirect"))
        await world.raw(
            store("a", b"1", x_raftkv_write_mode="redirect").replace(b"/store", b"/store?write_mode=forward")
        )
        await world.ask("DELETE", "/store/a?write_mode=forward")
        await world.ask("DELETE", "/store/a")
        modes = [WriteMode.REJECT, WriteMode.REDIRECT, WriteMode.FORWARD, WriteMode.FORWARD, WriteMode.REJECT]
        assert world.node.modes == modes

    play(scenario, lane, write_mode="reject")


def test_not_the_leader_is_a_redirect_or_the_references_422(lane: str) -> None:
    async def scenario(world: World) -> None:
        world.node.write_error = errors.NotLeader("node2", "10.0.0.2:2221")
        reply = await world.ask("DELETE", "/store/a%2Fb/?write_mode=redirect&x=1")
        assert reply.status == 307
        assert reply.headers["location"] == "http://10.0.0.2:2221/store/a%2Fb/?write_mode=redirect&x=1"
        reply = await world.raw(store("a", b"1", x_raftkv_write_mode="redirect"))
        assert (reply.status, reply.headers["location"]) == (307, "http://10.0.0.2:2221/store")
        reply = await world.raw(store("a", b"1", x_raftkv_write_mode="reject"))
        assert reply.status == 422
        assert reply.json == {
            "error": "not the leader",
            "code": "not_leader",
            "outcome": "rejected",
            "leader": "10.0.0.2:2221",
            "leader_node_id": "node2",
        }

    play(scenario, lane)


@pytest.mark.parametrize(
    ("error", "status", "outcome"),
    [
        (errors.NoLeader("no leader is known"), 503, "rejected"),
        (errors.Overloaded("too much is waiting"), 503, "rejected"),
        (errors.ShuttingDown("stopping"), 503, "rejected"),
        (errors.DiskFull("the disk is full"), 507, "rejected"),
        (errors.OutcomeUnknown("no answer in time"), 504, "unknown"),
        (errors.StorageError("the disk failed"), 500, "unknown"),
        (RuntimeError("secret"), 500, "unknown"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_went_wrong_with_a_write_is_told_honestly(
    lane: str, error: Exception, status: int, outcome: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(world: World) -> None:
        world.node.write_error = error
        for data in (store("a", b"1"), request("DELETE", "/store/a")):
            reply = await world.raw(data)
            assert (reply.status, reply.json["outcome"]) == (status, outcome)
            assert ("retry-after" in reply.headers) == (status == 503)
            assert "secret" not in reply.json["error"]

    play(scenario, lane)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (NOT_READY, 503, "not_ready"),
        (errors.ReadTimeout("no leader confirmed the read in time"), 504, "read_timeout"),
        (errors.InvalidInput("lease reads are off (setting lease_reads)"), 400, "invalid_input"),
    ],
)
def test_what_went_wrong_with_a_read_is_told(lane: str, error: Exception, status: int, code: str) -> None:
    async def scenario(world: World) -> None:
        world.node.error = error
        for target in ("/store/a", "/store/a?consistency=linearizable", "/store/a?consistency=lease"):
            reply = await world.ask("GET", target)
            assert (reply.status, reply.json["code"], reply.json["outcome"]) == (status, code, "rejected")

    play(scenario, lane)


def test_a_bug_in_the_node_costs_one_answer_and_not_the_connection(lane: str, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(world: World) -> None:
        client = await world.connect()
        world.node.error = ZeroDivisionError("secret")
        await client.send(request("GET", "/store/a"))
        reply = await client.reply()
        assert (reply.status, reply.json["code"]) == (500, "internal_error")
        assert b"secret" not in reply.body
        world.node.error = None
        await client.send(store("a", b"1"))
        assert (await client.reply()).status == 200

    play(scenario, lane)
    assert "ZeroDivisionError" in caplog.text


def test_further_fields_and_odd_spellings_of_headers_are_fine(lane: str) -> None:
    async def scenario(world: World) -> None:
        body = json.dumps({"ttl": 5, "value": 1, "key": "a"}).encode()
        odd = b"cOnTeNt-TyPe: application/json\r\nX-Odd: 1\r\n"
        head = b"POST /store HTTP/1.1\r\nhOsT: x\r\n%bCONTENT-LENGTH: %d\r\n\r\n" % (odd, len(body))
        assert (await world.raw(head + body)).status == 200

    play(scenario, lane)
