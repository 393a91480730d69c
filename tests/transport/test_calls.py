"""Calls: what can have happened decides the error, and only errors about the request cross the wire."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from raftkv import errors
from raftkv.errors import (
    CorruptData,
    InvariantViolation,
    OutcomeUnknown,
    PeerProtocolError,
    RaftkvError,
    Rejected,
    SettingsError,
    StorageError,
    TooLarge,
    Unavailable,
)
from raftkv.transport import TransportSettings
from raftkv.transport.calls import decode_error, encode_error
from raftkv.transport.framing import FrameKind
from tests.transport.raw import raw_listener
from tests.transport.world import run, world


def subclasses(root: type[RaftkvError]) -> set[type[RaftkvError]]:
    return {root}.union(*(subclasses(child) for child in root.__subclasses__()))


EXAMPLES: dict[str, RaftkvError] = {
    "SettingsError": SettingsError("raft_port", "is taken"),
    "TooLarge": TooLarge("the key", 5_000, 4_096, "max_key_bytes"),
    "KeyNotFound": errors.KeyNotFound("k"),
    "NotLeader": errors.NotLeader("node3", "10.0.0.3:2221"),
}


@pytest.mark.parametrize(
    "name",
    sorted(
        cls.__name__ for cls in subclasses(Rejected) | subclasses(OutcomeUnknown) if cls.__module__ == errors.__name__
    ),
)
def test_every_error_about_a_request_crosses_as_itself(name: str) -> None:
    error = EXAMPLES[name] if name in EXAMPLES else getattr(errors, name)("the text")
    assert isinstance(error, Rejected | OutcomeUnknown)
    back = decode_error(encode_error(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert vars(back) == vars(error)


def test_what_the_node_could_not_read_is_a_plain_refusal_to_the_caller() -> None:
    back = decode_error(encode_error(PeerProtocolError("not a join request")))
    assert type(back) is Rejected
    assert str(back) == "not a join request"


@pytest.mark.parametrize("name", ["StorageError", "CorruptData", "InvariantViolation", "RaftkvError", "Exception", ""])
def test_an_error_about_the_other_node_never_becomes_one_of_ours(name: str) -> None:
    back = decode_error(msgspec.msgpack.encode([name, "text", {}]))
    assert type(back) is OutcomeUnknown
    assert not isinstance(back, StorageError | InvariantViolation)


@given(st.binary(max_size=200))
def test_an_error_that_cannot_be_read_is_an_unknown_outcome(payload: bytes) -> None:
    assert type(decode_error(payload)) is OutcomeUnknown


@pytest.mark.parametrize("error", [CorruptData("f", 3, "bad"), InvariantViolation("two leaders"), RuntimeError("bug")])
def test_a_fault_of_the_serving_node_is_unknown_to_the_caller_and_seen_by_the_loop(error: Exception) -> None:
    seen: list[object] = []

    async def main() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: seen.append(context["exception"]))
        async with world() as made:
            first, second = await made.pair()

            async def fail(kind: int, payload: bytes) -> bytes:
                raise error

            second.handler.answer = fail
            with pytest.raises(OutcomeUnknown, match=second.address):
                await first.transport.call(second.address, 1, b"", 5.0)
            assert second.transport.stats.calls_open == 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
    assert seen == [error]


def test_an_answer_over_the_limit_is_an_unknown_outcome_that_says_so() -> None:
    async def scenario() -> None:
        async with world() as made:
            first = await made.start(1)
            second = await made.start(2, settings=TransportSettings(max_call_bytes=1_000))

            async def chatter(kind: int, payload: bytes) -> bytes:
                return bytes(1_001)

            second.handler.answer = chatter
            with pytest.raises(OutcomeUnknown, match="1001 bytes, the limit is 1000"):
                await first.transport.call(second.address, 1, b"", 5.0)

    run(scenario)


def test_a_request_over_the_server_s_limit_ends_the_connection() -> None:
    async def scenario() -> None:
        async with world() as made:
            first = await made.start(1)
            second = await made.start(2, settings=TransportSettings(max_call_bytes=1_000))
            with pytest.raises(OutcomeUnknown):
                await first.transport.call(second.address, 1, bytes(1_001), 5.0)
            assert second.transport.stats.refused == {"oversize": 1}
            assert second.transport.stats.calls_open == 0

    run(scenario)


def test_an_unknown_host_is_unavailable_and_named() -> None:
    async def scenario() -> None:
        async with world() as made:
            first = await made.start(1)
            with pytest.raises(Unavailable, match=r"cannot reach no-such-host\.invalid:1111: "):
                await first.transport.call("no-such-host.invalid:1111", 1, b"", 9.0)

    run(scenario)


def test_a_silent_listener_is_unavailable_because_it_was_asked_nothing() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            first = await made.start(1)
            with pytest.raises(Unavailable, match=f"cannot reach {listener.address}: no answer in time"):
                await first.transport.call(listener.address, 1, b"", 0.05)

    run(scenario)


def test_a_listener_that_dies_before_the_request_is_unavailable_and_after_it_unknown() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            first = await made.start(1)
            call = asyncio.create_task(first.transport.call(listener.address, 1, b"", 5.0))
            await (await listener.next_dial()).close()
            with pytest.raises(Unavailable):
                await call
            call = asyncio.create_task(first.transport.call(listener.address, 7, b"question", 5.0))
            peer = await listener.accept()
            assert await peer.hear_frame() == (7, b"question")
            await peer.close()
            with pytest.raises(OutcomeUnknown, match="it may have acted"):
                await call

    run(scenario)


def test_an_answer_of_no_known_kind_is_an_unknown_outcome() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            first = await made.start(1)
            call = asyncio.create_task(first.transport.call(listener.address, 7, b"", 5.0))
            peer = await listener.accept()
            peer.say_frame(FrameKind.CHUNK, b"")
            with pytest.raises(OutcomeUnknown, match="frame of kind 244"):
                await call

    run(scenario)


def test_a_cancelled_call_closes_its_connection() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            first = await made.start(1)
            call = asyncio.create_task(first.transport.call(listener.address, 7, b"", 5.0))
            peer = await listener.accept()
            await peer.hear_frame()
            call.cancel()
            assert await peer.hear_end() == b""
            assert call.cancelled()

    run(scenario)


def test_a_stopping_node_lets_go_of_its_own_calls() -> None:
    async def scenario() -> None:
        async with raw_listener(2) as listener, world() as made:
            first = await made.start(1)
            call = asyncio.create_task(first.transport.call(listener.address, 7, b"", 5.0))
            peer = await listener.accept()
            await peer.hear_frame()
            await first.transport.stop()
            with pytest.raises(OutcomeUnknown, match="this node is stopping"):
                await call

    run(scenario)
