"""Both clients against a real socket: one set of claims, run for each."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from raftkv.client import AsyncClient, Client, Position
from raftkv.errors import (
    InvalidInput,
    KeyNotFound,
    MembershipRefused,
    OutcomeUnknown,
    Rejected,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from tests.client.http_server import HangUp, Reply, ScriptedServer, Seen, Stall, ok, refused

Run = Callable[..., Any]


def run_sync(servers: str, method: str, *arguments: Any, timeout_seconds: float = 5.0) -> Any:
    with Client(servers, timeout_seconds=timeout_seconds) as client:
        return getattr(client, method)(*arguments)


def run_async(servers: str, method: str, *arguments: Any, timeout_seconds: float = 5.0) -> Any:
    async def main() -> Any:
        async with AsyncClient(servers, timeout_seconds=timeout_seconds) as client:
            return await getattr(client, method)(*arguments)

    return asyncio.run(main())


@pytest.fixture(params=[run_sync, run_async], ids=["sync", "async"])
def run(request: pytest.FixtureRequest) -> Run:
    return request.param  # type: ignore[no-any-return]  # pytest's param is Any


@pytest.fixture
def closed_address() -> Iterator[str]:
    """An address that refuses connections for as long as the test runs: bound, never listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{bound.getsockname()[1]}"


def stored(value_text: str) -> Reply:
    return Reply(200, b'{"message":"ok","data":{"key":"k","value":%s}}' % value_text.encode())


def test_put_sends_the_published_request_and_returns_the_position(run: Run) -> None:
    with ScriptedServer(ok({"key": "foo", "value": "bar"})) as server:
        assert run(server.address, "put", "foo", "bar") == Position()
        assert server.seen == [Seen("POST", "/store", b'{"key":"foo","value":"bar"}')]


def test_a_position_is_read_from_the_headers(run: Run) -> None:
    headers = {"X-Raftkv-Revision": "7", "X-Raftkv-Applied-Index": "9", "X-Raftkv-Term": "2", "X-Raftkv-Stale": "true"}
    with ScriptedServer(Reply(200, b"{}", {**headers, "X-Raftkv-Leader": "node1"})) as server:
        position = run(server.address, "delete", "foo")
    assert position == Position(revision=7, applied_index=9, term=2, leader="node1", is_stale=True)


@pytest.mark.parametrize(
    "text", ["9007199254740993", "12345678901234567890123", "1.10", '{"b":1,"a":[1.0]}', '"\\u00e4"']
)
def test_values_come_back_digit_for_digit(run: Run, text: str) -> None:
    with ScriptedServer(stored(text)) as server:
        result = run(server.address, "get", "k")
    assert result.json_text == text
    assert result.value == json.loads(text)


def test_any_key_reaches_the_server_as_one_path_segment(run: Run) -> None:
    with ScriptedServer(stored("1")) as server:
        run(server.address, "get", "../a b/ü", "linearizable")
        assert server.seen[0].target == "/store/%2E%2E%2Fa%20b%2F%C3%BC?consistency=linearizable"


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refused(404, "key_not_found"), KeyNotFound),
        (refused(413, "too_large"), TooLarge),
        (refused(415, "unsupported_media_type"), UnsupportedMediaType),
        (refused(409, "membership_refused"), MembershipRefused),
        (refused(404, "route_not_found"), Rejected),
        (refused(400, "a_code_of_a_newer_server"), InvalidInput),
        (Reply(403, b"<html>"), Rejected),
    ],
)
def test_errors_are_typed_by_their_code(run: Run, reply: Reply, expected: type[Exception]) -> None:
    with ScriptedServer(reply) as server:
        with pytest.raises(expected) as caught:
            run(server.address, "put", "k", 1)
        assert type(caught.value) is expected
        assert len(server.seen) == 1


@pytest.mark.parametrize("fate", [HangUp(), Reply(504, b'{"outcome":"unknown","error":"?"}')], ids=["hang up", "504"])
def test_a_write_of_unknown_outcome_is_sent_once(run: Run, fate: HangUp | Reply) -> None:
    with ScriptedServer(fate, ok({})) as server, ScriptedServer(ok({})) as other:
        with pytest.raises(OutcomeUnknown):
            run(f"{server.address},{other.address}", "put", "k", 1)
        assert (len(server.seen), len(other.seen)) == (1, 0)


def test_a_write_that_is_not_answered_in_time_has_an_unknown_outcome(run: Run) -> None:
    with ScriptedServer(Stall()) as server, pytest.raises(OutcomeUnknown, match="no answer in time"):
        run(server.address, "put", "k", 1, timeout_seconds=0.2)


def test_a_read_goes_on_to_the_next_server(run: Run, closed_address: str) -> None:
    with ScriptedServer(HangUp()) as broken, ScriptedServer(stored('"v"')) as good:
        assert run(f"{closed_address},{broken.address},{good.address}", "get", "k").value == "v"


def test_nobody_there_is_unavailable(run: Run, closed_address: str) -> None:
    with pytest.raises(Unavailable, match="cannot connect"):
        run(closed_address, "put", "k", 1, timeout_seconds=0.2)


def test_the_leader_is_followed_by_redirect_and_by_name(run: Run) -> None:
    with ScriptedServer(ok({})) as leader:
        redirect = Reply(307, b"", {"Location": f"http://{leader.address}/store"})
        with ScriptedServer(redirect) as follower:
            run(follower.address, "put", "k", 1)
        with ScriptedServer(refused(422, "not_leader", leader=leader.address)) as follower:
            run(follower.address, "put", "k", 1)
        assert [seen.body for seen in leader.seen] == [b'{"key":"k","value":1}'] * 2


def test_values_that_json_cannot_hold_never_leave(run: Run, closed_address: str) -> None:
    for method, value in (("put", object()), ("put", float("nan")), ("put_json", "{"), ("put", "\ud800")):
        with pytest.raises(InvalidInput):
            run(closed_address, method, "k", value)


def test_members_are_read_from_the_stats(run: Run) -> None:
    configuration = [
        {"id": "node1", "address": "127.0.0.1:1111", "suffrage": "Voter"},
        {"id": "node2", "address": "127.0.0.1:1112", "suffrage": "Nonvoter"},
    ]
    with ScriptedServer(ok({"leader": "node1", "latest_configuration": configuration})) as server:
        one, two = run(server.address, "members")
    assert (one.node_id, one.suffrage, one.is_leader) == ("node1", "voter", True)
    assert (two.raft_address, two.suffrage, two.is_leader) == ("127.0.0.1:1112", "learner", False)


def test_join_tells_whether_it_is_complete(run: Run) -> None:
    with ScriptedServer(ok({}, "joined"), Reply(202, b'{"message":"joining","data":{"match_index":5}}')) as server:
        assert run(server.address, "join", "node2", "127.0.0.1:1112").is_complete
        assert json.loads(server.seen[0].body) == {"node_id": "node2", "raft_address": "127.0.0.1:1112"}
        later = run(server.address, "join", "node2", "127.0.0.1:1112")
    assert (later.is_complete, later.data) == (False, {"match_index": 5})
