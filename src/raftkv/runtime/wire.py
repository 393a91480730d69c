"""What nodes say to each other besides Raft: forwarded work, and the calls of joining and administration.

Frames need membership (they travel on a peer connection); calls do not (one question, one answer, on a
connection of their own). Everything is MessagePack with typed decoding: other bytes raise
`PeerProtocolError`, which ends that connection and nothing else.
"""

from __future__ import annotations

import enum
from typing import TypeVar

import msgspec

from raftkv.errors import OutcomeUnknown, PeerProtocolError
from raftkv.types import Configuration, MemberId


class FrameKind(enum.IntEnum):
    RAFT = 1
    FORWARD = 2
    FORWARD_REPLY = 3


class CallKind(enum.IntEnum):
    PROBE = 1
    ABSORB = 2
    JOIN = 3
    REMOVE = 4
    TRANSFER = 5


class Forward(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Commands that a client gave to a follower; `batch` is encoded as a log entry's data is."""

    request_id: int
    batch: bytes


class Failure(msgspec.Struct, frozen=True, array_like=True, tag=0, gc=False):
    """An error as it crosses the wire, in the place of a result; `is_unknown` is not a refusal."""

    code: str
    message: str
    is_unknown: bool


class ForwardReply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Either `failure`, for the whole batch, or the encoded results and failures, and the highest index among them."""

    request_id: int
    index: int
    results: bytes
    failure: Failure | None = None


class Probe(msgspec.Struct, frozen=True, array_like=True):
    """Who are you? Changes nothing."""


class ProbeReply(msgspec.Struct, frozen=True, array_like=True):
    """`member_count` counts the members of the asked node's own configuration, itself included."""

    node_id: str
    member_id: MemberId
    cluster_id: int
    member_count: int
    has_user_data: bool
    raft_address: str
    http_address: str


class Absorb(msgspec.Struct, frozen=True, array_like=True):
    """Give up your empty one-node cluster and become a blank server of cluster `cluster_id`.

    `expected_*` is what the probe saw; if anything differs by now the call is refused. `configuration` is the
    asking cluster's, so that the blank server knows whom to answer; it does not stand in it itself.
    """

    cluster_id: int
    expected_cluster_id: int
    expected_member_id: MemberId
    configuration: Configuration


class AbsorbReply(msgspec.Struct, frozen=True, array_like=True):
    member_id: MemberId
    http_address: str


class Join(msgspec.Struct, frozen=True, array_like=True):
    """`is_forwarded`: the asker is not the leader either, so a node that does not lead refuses."""

    node_id: str
    raft_address: str
    is_forwarded: bool = False


class Remove(msgspec.Struct, frozen=True, array_like=True):
    node_id: str
    is_forwarded: bool = False


class Transfer(msgspec.Struct, frozen=True, array_like=True):
    """Hand leadership to `node_id`; empty lets the leader choose."""

    node_id: str = ""
    is_forwarded: bool = False


class ChangeReply(msgspec.Struct, frozen=True, array_like=True):
    """`is_complete` false: the change was made but has not yet taken full effect; `progress` says how far."""

    is_complete: bool
    progress: str = ""


_T = TypeVar("_T")

encode = msgspec.msgpack.Encoder().encode
_decoders: dict[type, msgspec.msgpack.Decoder[object]] = {}


def decode_answer(data: bytes, kind: type[_T]) -> _T:
    """The answer to a call; one that cannot be read leaves open what was done (`OutcomeUnknown`)."""
    try:
        return decode(data, kind)
    except PeerProtocolError as error:
        raise OutcomeUnknown(f"the answer of the other node cannot be read, it may have acted: {error}") from error


def decode(data: bytes | memoryview, kind: type[_T]) -> _T:
    """Raises `PeerProtocolError` unless `data` is exactly one `kind`."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    try:
        return decoder.decode(data)  # type: ignore[return-value]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"not a {kind.__name__}: {error}") from error
