"""Who may speak: every judgement of a hello and of its answer, without a socket."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raftkv.transport import PeerIdentity
from raftkv.transport.framing import ConnectionRefusal, RefusalReason
from raftkv.transport.handshake import (
    MAGIC,
    PROTOCOL_VERSION,
    Hello,
    HelloReply,
    Purpose,
    check_hello,
    check_reply,
    decode_hello,
    decode_reply,
    encode_hello,
    encode_reply,
)

ME = PeerIdentity(cluster_id=2**63 - 1, member_id=1, node_id="node1")
OTHER = PeerIdentity(cluster_id=2**63 - 1, member_id=2**63 - 2, node_id="node2")
FOREIGN = PeerIdentity(cluster_id=5, member_id=3, node_id="node3")


def refusal_of(hello: Hello, identity: PeerIdentity = ME) -> RefusalReason | None:
    try:
        check_hello(hello, identity)
    except ConnectionRefusal as refusal:
        return refusal.reason
    return None


def hello_of(identity: PeerIdentity, purpose: Purpose = Purpose.PEER, recipient: int = 1) -> Hello:
    return decode_hello(encode_hello(identity, purpose, recipient))


def test_a_hello_says_all_that_the_dialer_is() -> None:
    hello = hello_of(OTHER, Purpose.SNAPSHOT, recipient=1)
    assert hello == Hello(MAGIC, PROTOCOL_VERSION, Purpose.SNAPSHOT, 2**63 - 1, 2**63 - 2, "node2", 1)


@pytest.mark.parametrize(
    ("identity", "purpose", "recipient", "expected"),
    [
        (OTHER, Purpose.PEER, 1, None),
        (OTHER, Purpose.SNAPSHOT, 1, None),
        (OTHER, Purpose.PEER, 0, None),
        (OTHER, Purpose.PEER, 77, RefusalReason.RECIPIENT),
        (FOREIGN, Purpose.PEER, 1, RefusalReason.CLUSTER),
        (FOREIGN, Purpose.SNAPSHOT, 1, RefusalReason.CLUSTER),
        (FOREIGN, Purpose.CALL, 0, None),
        (FOREIGN, Purpose.CALL, 77, RefusalReason.RECIPIENT),
        (ME, Purpose.PEER, 1, RefusalReason.MEMBER),
        (PeerIdentity(ME.cluster_id, 0, "nobody"), Purpose.PEER, 1, RefusalReason.MEMBER),
    ],
)
def test_each_judgement_of_a_hello(
    identity: PeerIdentity, purpose: Purpose, recipient: int, expected: RefusalReason | None
) -> None:
    assert refusal_of(hello_of(identity, purpose, recipient)) == expected


def test_another_version_is_named_whatever_else_its_hello_holds() -> None:
    future = msgspec.msgpack.encode([MAGIC, 9, {"new": "shape"}])
    with pytest.raises(ConnectionRefusal, match="version 9 is not spoken here, only 1") as caught:
        decode_hello(future)
    assert caught.value.reason is RefusalReason.VERSION


def test_fields_that_a_later_version_appends_are_ignored() -> None:
    longer = msgspec.msgpack.decode(encode_hello(OTHER, Purpose.PEER, 1))
    assert decode_hello(msgspec.msgpack.encode([*longer, "more", 7])) == hello_of(OTHER)


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        msgspec.msgpack.encode(["other", 1, 1, 1, 1, "n", 0]),
        msgspec.msgpack.encode([MAGIC, 1, 4, 1, 1, "n", 0]),
        msgspec.msgpack.encode([MAGIC, 1, 1, "x", 1, "n", 0]),
        msgspec.msgpack.encode([MAGIC, 1, 1, 1, 1, "n" * 256, 0]),
        msgspec.msgpack.encode([MAGIC]),
        msgspec.msgpack.encode({}),
        b"\x91" * 60_000,
    ],
)
def test_what_is_no_hello_is_refused(payload: bytes) -> None:
    with pytest.raises(ConnectionRefusal) as caught:
        decode_hello(payload)
    assert caught.value.reason is RefusalReason.HANDSHAKE


@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_or_read_but_never_crash(payload: bytes) -> None:
    for decode in (decode_hello, decode_reply):
        with pytest.raises(ConnectionRefusal):
            decode(payload)


def test_a_refusal_travels_with_its_reason_and_text() -> None:
    refusal = ConnectionRefusal(RefusalReason.CLUSTER, "wrong cluster")
    with pytest.raises(ConnectionRefusal, match="wrong cluster") as caught:
        check_reply(decode_reply(encode_reply(ME, refusal)), OTHER, Purpose.PEER, 1)
    assert caught.value.reason is RefusalReason.CLUSTER


def test_a_reason_of_a_later_version_is_still_a_refusal() -> None:
    reply = HelloReply(MAGIC, 2, "too hot", "weather", 1, 1, "n")
    with pytest.raises(ConnectionRefusal, match="too hot"):
        check_reply(reply, OTHER, Purpose.PEER, 1)


@pytest.mark.parametrize(
    ("answerer", "purpose", "recipient", "expected"),
    [
        (ME, Purpose.PEER, 1, None),
        (ME, Purpose.PEER, 2, RefusalReason.RECIPIENT),
        (FOREIGN, Purpose.PEER, 3, RefusalReason.CLUSTER),
        (FOREIGN, Purpose.CALL, 0, None),
    ],
)
def test_the_dialer_judges_the_answer_too(
    answerer: PeerIdentity, purpose: Purpose, recipient: int, expected: RefusalReason | None
) -> None:
    reply = decode_reply(encode_reply(answerer, None))
    if expected is None:
        check_reply(reply, OTHER, purpose, recipient)
        return
    with pytest.raises(ConnectionRefusal) as caught:
        check_reply(reply, OTHER, purpose, recipient)
    assert caught.value.reason is expected
