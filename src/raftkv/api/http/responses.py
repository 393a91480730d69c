"""The bytes and texts of answers, for both lanes.

Every answer says where this node stands (`x-raftkv-*`). Rendering that for each request would cost more than
the read itself, so `Heads` keeps the rendered block until the position, which the node hands out as the same
object while nothing changes, is another one.
"""

from __future__ import annotations

import http
import urllib.parse
from email.utils import formatdate
from typing import Any, NamedTuple

import msgspec

from raftkv.api import status
from raftkv.api.port import NodePort, PositionView
from raftkv.api.request_errors import MethodNotAllowed
from raftkv.api.service import Operation, ReadOperation, WriteOperation
from raftkv.errors import KeyNotFound, NotLeader, RaftkvError, error_code
from raftkv.kv import Put
from raftkv.types import Consistency, WriteMode

STATUS_LINES = {s.value: f"HTTP/1.1 {s.value} {s.phrase}\r\n".encode() for s in http.HTTPStatus}
JSON_TYPE = (b"content-type", b"application/json")

FETCHED = b'{"message":"success fetching data","data":{"key":%b,"value":%b}}'
STORED = b'{"message":"success persisting data","data":{"key":%b,"value":%b}}'
REMOVED = b'{"message":"success removing data","data":{"key":%b,"value":null}}'

Headers = list[tuple[bytes, bytes]]

to_json = msgspec.json.Encoder().encode


class Answer(NamedTuple):
    """An answer but for the position and the framing. `headers` holds no content-length."""

    status: int
    headers: Headers
    body: bytes
    revision: int | None = None
    """A write's own; None stands for that of the state when the answer is rendered."""


class Heads:
    """The first lines of answers, rendered once for each position and second."""

    def __init__(self, node: NodePort) -> None:
        self._node = node
        self._date = b""
        self.position: PositionView | None = None
        self._fields: Headers = []
        self._lines = b""  # of every answer: date, position without the revision, and how the connection goes on
        self.local_read = b""
        """Everything of an answer 200 to a local read, up to and with `content-length: `."""
        self.linearizable_read = b""
        self.write = b""
        """Everything of an answer 200 to a write up to the lines `content-length` and `x-raftkv-revision`."""
        self.is_closing = False
        self.tick()

    def tick(self) -> None:
        """Once a second: the date has changed."""
        self._date = formatdate(usegmt=True).encode()
        self.position = None

    def close(self) -> None:
        """From now on every answer says that its connection ends."""
        self.is_closing = True
        self.position = None

    def refresh(self, position: PositionView) -> None:
        """Render for `position`; the lanes call this when `node.position()` is not `self.position`."""
        self.position = position
        fields = [
            (b"x-raftkv-applied-index", b"%d" % position.applied_index),
            (b"x-raftkv-term", b"%d" % position.current_term),
        ]
        if position.leader_node_id:
            fields.append((b"x-raftkv-leader", position.leader_node_id.encode()))
        if position.is_marked_stale:
            fields.append((b"x-raftkv-stale", b"true"))
        self._fields = fields
        self._lines = b"date: %b\r\n%b%b" % (
            self._date,
            b"connection: close\r\n" if self.is_closing else b"",
            b"".join([b"%b: %b\r\n" % field for field in fields]),
        )
        common = b"%b%bcontent-type: application/json\r\n" % (STATUS_LINES[200], self._lines)
        read = b"%bx-raftkv-revision: %d\r\nx-raftkv-consistency: %b\r\ncontent-length: "
        self.write = common
        self.local_read = read % (common, position.revision, b"local")
        self.linearizable_read = read % (common, position.revision, b"linearizable")

    def render(self, answer: Answer, *, keep_alive: bool, with_body: bool = True) -> bytes:
        """A whole answer that has no template of its own."""
        position = self._node.position()
        if position is not self.position:
            self.refresh(position)
        return b"%b%b%b%bx-raftkv-revision: %d\r\ncontent-length: %d\r\n\r\n%b" % (
            STATUS_LINES[answer.status],
            self._lines,
            b"" if keep_alive or self.is_closing else b"connection: close\r\n",
            b"".join([b"%b: %b\r\n" % pair for pair in answer.headers]),
            position.revision if answer.revision is None else answer.revision,
            len(answer.body),
            answer.body if with_body else b"",
        )

    def position_headers(self, answer: Answer) -> Headers:
        """For the slow lane, which wants headers and not lines."""
        position = self._node.position()
        if position is not self.position:
            self.refresh(position)
        revision = position.revision if answer.revision is None else answer.revision
        return [(b"x-raftkv-revision", b"%d" % revision), *self._fields]


def operation_answer(operation: Operation, result: Any) -> Answer:
    """The answer to `operation`: `result` is a stored value or None, or what a write answered."""
    if isinstance(operation, ReadOperation):
        if result is None:
            raise KeyNotFound(operation.key.decode())
        value = result if operation.consistency is Consistency.LOCAL else result.value
        headers = [JSON_TYPE, (b"x-raftkv-consistency", operation.consistency.encode())]
        return Answer(200, headers, FETCHED % (key_json(operation.key), value))
    command = operation.command
    if isinstance(command, Put):
        return Answer(200, [JSON_TYPE], STORED % (key_json(command.key), command.value), result.revision)
    return Answer(200, [JSON_TYPE], REMOVED % key_json(command.key), result.revision)


def key_json(key: bytes) -> bytes:
    return to_json(key.decode())


def error_answer(error: BaseException, operation: Operation | None = None, url: bytes = b"") -> Answer:
    """The answer that tells of `error`; a write in mode `redirect` is sent on to the leader with its `url`."""
    row = status.row_of(error)
    is_ours = isinstance(error, RaftkvError)
    body: dict[str, Any] = {
        "error": str(error) if is_ours else "internal error; the node's log says more",
        "code": error_code(type(error)) if is_ours else "internal_error",
        "outcome": status.outcome(error),
    }
    headers = [JSON_TYPE]
    code = row.http
    if row.retry_after_s:
        headers.append((b"retry-after", b"%d" % row.retry_after_s))
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode("ascii")))
    if isinstance(error, NotLeader):
        body["leader"] = error.leader_address
        body["leader_node_id"] = error.leader_node_id
        is_redirect = isinstance(operation, WriteOperation) and operation.mode is WriteMode.REDIRECT
        if is_redirect and error.leader_address:
            code = 307
            headers.append((b"location", b"http://%b%b" % (error.leader_address.encode(), _origin_form(url))))
    return Answer(code, headers, to_json(body))


def _origin_form(url: bytes) -> bytes:
    """Path and query as sent; bytes that a header should not hold are percent-encoded."""
    if not url.startswith(b"/"):
        parts = urllib.parse.urlsplit(url)
        url = (parts.path or b"/") + (b"?" + parts.query if parts.query else b"")
    return urllib.parse.quote_from_bytes(url, safe=b"%/?:@!$&'()*+,;=-._~[]").encode("ascii")
