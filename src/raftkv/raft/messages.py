"""What servers say to each other (Raft figure 2 and figure 13, Thesis §3.10, §6.4, §9.6).

Plain values: no behaviour, no identity beyond their fields, encoded as MessagePack arrays. `term` is
always the sender's `current_term`, except in `PreVote`, where it is the term that the sender would
campaign in. Unknown or ill-typed bytes raise `PeerProtocolError` and reach nobody.

Differs from the paper: a heartbeat is an `AppendEntries` without entries, as there, but every one
carries `read_round`, so that one reply confirms leadership for reads as well; a reply says how far
*this* message was verified (`match_index`), not how long the follower's log is.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from raftkv.errors import PeerProtocolError
from raftkv.types import Entry, MemberId, SnapshotMetadata


class _Message(msgspec.Struct, frozen=True, array_like=True, tag=True, gc=False):
    term: int
    sender: MemberId
    recipient: MemberId


class PreVote(_Message, frozen=True, tag=1):
    """Would you vote for me in `term`? Changes nothing at the receiver (Thesis §9.6)."""

    last_log_index: int
    last_log_term: int


class PreVoteReply(_Message, frozen=True, tag=2):
    """`requested_term` echoes the question, so that an old answer cannot be counted for a new one."""

    requested_term: int
    vote_granted: bool


class RequestVote(_Message, frozen=True, tag=3):
    """Raft §5.2, §5.4.1. `leadership_transfer` overrides the receivers' lease on their leader (Thesis §4.2.3)."""

    last_log_index: int
    last_log_term: int
    leadership_transfer: bool = False


class RequestVoteReply(_Message, frozen=True, tag=4):
    vote_granted: bool


class AppendEntries(_Message, frozen=True, tag=5):
    """Raft §5.3. `entries` are contiguous and ascending from `prev_log_index` + 1; may be empty.

    `read_round` is the leader's newest round of leadership confirmation (Thesis §6.4); it only grows
    within a term, and 0 means that none was asked for yet.
    """

    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    read_round: int
    entries: tuple[Entry, ...] = ()


class AppendEntriesReply(_Message, frozen=True, tag=6):
    """On success the sender's durable log matches the leader's up to `match_index` and no claim is made beyond.

    On refusal `prev_log_index` echoes the question and (`hint_index`, `hint_term`) name the last place
    where the logs may still agree: the largest index at or below the question whose term is at or below
    `prev_log_term` of the question (fast backtracking, Raft §5.3 end).
    """

    success: bool
    match_index: int
    prev_log_index: int
    hint_index: int
    hint_term: int
    read_round: int


class InstallSnapshot(_Message, frozen=True, tag=7):
    """The chunks of this snapshot have arrived, were verified and are staged at the receiver (Raft §7).

    The chunks themselves travel outside the core; this message lets the core decide whether they count.
    """

    snapshot: SnapshotMetadata
    read_round: int = 0


class InstallSnapshotReply(_Message, frozen=True, tag=8):
    """The sender's durable state covers the log up to `match_index`."""

    match_index: int
    read_round: int = 0


class TimeoutNow(_Message, frozen=True, tag=9):
    """Campaign at once: leadership is handed to you (Thesis §3.10)."""


class ReadIndex(_Message, frozen=True, tag=10):
    """A follower asks the leader for a confirmed commit index (Thesis §6.4). `request_id` is the asker's."""

    request_id: int


class ReadIndexReply(_Message, frozen=True, tag=11):
    """`success` false: the asked server is not a leader, or lost leadership before it could confirm."""

    request_id: int
    success: bool
    read_index: int


Message: TypeAlias = (
    PreVote
    | PreVoteReply
    | RequestVote
    | RequestVoteReply
    | AppendEntries
    | AppendEntriesReply
    | InstallSnapshot
    | InstallSnapshotReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
)

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    return _encoder.encode(message)


def decode_message(data: bytes | memoryview) -> Message:
    """Raises `PeerProtocolError` for anything that is not exactly one message."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PeerProtocolError(f"not a Raft message: {error}") from error
