"""What servers answer, as Python values; and what their errors mean, as the errors of `raftkv.errors`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from raftkv import errors
from raftkv.errors import (
    InvalidInput,
    KeyNotFound,
    NotLeader,
    OutcomeUnknown,
    RaftkvError,
    Rejected,
    TooLarge,
    Unavailable,
    error_code,
)


class Answer(msgspec.Struct, frozen=True):
    """One HTTP answer. Names in `headers` are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def leader(self) -> str:
        """`host:port` of the leader as far as the answer names it."""
        return _text_field(self.json(), "leader") or self.headers.get("x-raftkv-leader-address", "")

    def json(self) -> Any:
        """The body, or None when it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None


class Position(msgspec.Struct, frozen=True):
    """Where the node that answered stood: nothing it answered is newer than this.

    `is_stale` marks a read by a node that no leader has confirmed to be up to date since its start.
    """

    revision: int = 0
    applied_index: int = 0
    term: int = 0
    leader: str = ""
    is_stale: bool = False


class GetResult(msgspec.Struct, frozen=True):
    """A value. `json_text` is exactly what was stored; `value` is that text parsed."""

    key: str
    json_text: str
    position: Position

    @property
    def value(self) -> Any:
        return json.loads(self.json_text)


class JoinResult(msgspec.Struct, frozen=True):
    """`is_complete` once the node votes; before that the join goes on by itself and `data` has its progress."""

    is_complete: bool
    message: str
    data: Any


class MemberInfo(msgspec.Struct, frozen=True):
    """A member as the answering node knows it; `suffrage` is `voter` or `learner`."""

    node_id: str
    raft_address: str
    suffrage: str
    is_leader: bool
    http_address: str = ""


class _StoreData(msgspec.Struct):
    key: str
    value: msgspec.Raw


class _StoreReply(msgspec.Struct):
    data: _StoreData


def position(answer: Answer) -> Position:
    """The position headers of an answer; a header that is missing counts as 0 or empty."""

    def number(name: str) -> int:
        text = answer.headers.get(name, "")
        return int(text) if text.isascii() and text.isdigit() else 0

    return Position(
        revision=number("x-raftkv-revision"),
        applied_index=number("x-raftkv-applied-index"),
        term=number("x-raftkv-term"),
        leader=answer.headers.get("x-raftkv-leader", ""),
        is_stale=answer.headers.get("x-raftkv-stale", "") == "true",
    )


def stored(answer: Answer) -> GetResult:
    """The value in an answer of `GET /store/…`, digit for digit."""
    try:
        data = msgspec.json.decode(answer.body, type=_StoreReply).data
    except msgspec.MsgspecError as error:
        raise Unavailable(f"the server's answer cannot be read: {error}") from None
    return GetResult(data.key, bytes(data.value).decode(), position(answer))


def data_of(answer: Answer) -> Any:
    """The `data` of an answer of any other route; {} when it has none."""
    body = answer.json()
    return body.get("data", {}) if isinstance(body, dict) else {}


def message_of(answer: Answer) -> str:
    return _text_field(answer.json(), "message")


def joined(answer: Answer) -> JoinResult:
    return JoinResult(answer.status == 200, message_of(answer), data_of(answer))


def members_of(stats: Mapping[str, Any]) -> list[MemberInfo]:
    """The members that `/raft/stats` lists, in its order."""
    leader = stats.get("leader", "")
    return [
        MemberInfo(
            node_id=str(member.get("id", "")),
            raft_address=str(member.get("address", "")),
            suffrage="voter" if member.get("suffrage") == "Voter" else "learner",
            is_leader=bool(leader) and member.get("id") == leader,
            http_address=str(member.get("http_address", "")),
        )
        for member in stats.get("latest_configuration", [])
    ]


def error_of(answer: Answer, key: str, is_write: bool) -> RaftkvError | None:
    """The error that an answer tells of, None for success.

    A write whose answer does not surely say `rejected` has an unknown outcome.
    """
    if answer.status in {200, 202}:
        return None
    body = answer.json()
    text = _text_field(body, "error") or f"the server answered {answer.status}"
    code, outcome = _text_field(body, "code"), _text_field(body, "outcome")
    if outcome == "unknown" or (is_write and outcome != "rejected" and answer.status >= 500):
        return OutcomeUnknown(text)
    kind = _ERRORS_BY_CODE.get(code) or _by_status(answer.status, is_key_known=bool(key) and not code)
    return _revived(kind, text, key, answer.leader)


def _by_status(status: int, is_key_known: bool) -> type[RaftkvError]:
    if status == 404 and is_key_known:
        return KeyNotFound
    if status == 413:
        return TooLarge
    if status >= 500:
        return Unavailable
    return InvalidInput if status in {400, 405, 411, 414, 415, 422, 431} else Rejected


def _revived(kind: type[RaftkvError], text: str, key: str, leader: str) -> RaftkvError:
    """An error of that kind with the server's own text, whatever its constructor would have made of it."""
    if kind is KeyNotFound:
        return KeyNotFound(key)
    if kind is NotLeader:
        return NotLeader(leader_address=leader)
    error = kind.__new__(kind)
    RaftkvError.__init__(error, text)
    if isinstance(error, TooLarge):
        error.what, error.size_bytes, error.limit_bytes = "request", -1, -1
    return error


def _text_field(body: Any, name: str) -> str:
    value = body.get(name, "") if isinstance(body, dict) else ""
    return value if isinstance(value, str) else ""


_ERRORS_BY_CODE: dict[str, type[RaftkvError]] = {
    error_code(kind): kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Rejected)
}
"""Only those of `raftkv.errors`: what else is loaded must not matter."""
