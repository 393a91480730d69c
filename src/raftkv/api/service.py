"""Requests for keys, checked and turned into commands: the part that every skin and both HTTP lanes share.

A key is UTF-8 text, trimmed of white space, not empty, at most `max_key_bytes`. A value is one JSON text,
stored as the bytes that were sent: decoding and encoding it again would change large numbers, the order of
fields and escapes. So it is checked to be JSON (RFC 8259: no NaN, nothing after it, valid UTF-8) and
otherwise left alone.

Everything here is synchronous except the two waits at the end, which the slow lane uses.
"""

from __future__ import annotations

import asyncio
import enum
import urllib.parse
from typing import Any, NamedTuple, TypeAlias, TypeVar

import msgspec

from raftkv.api.port import HttpSettings, NodePort
from raftkv.api.request_errors import MalformedRequest, MethodNotAllowed, UnprocessableRequest
from raftkv.errors import InvalidInput, TooLarge, UnsupportedMediaType
from raftkv.kv import Delete, Put
from raftkv.types import Consistency, WriteMode

ROOT = b"/store"
PREFIX = b"/store/"

_PERCENT = ord("%")
_HEX = frozenset(b"0123456789abcdefABCDEF")


class _StoreRequest(msgspec.Struct, gc=False):
    key: str
    value: msgspec.Raw = msgspec.Raw(b"")
    """Empty when it was not sent; a sent value has at least one byte."""


_decode_store = msgspec.json.Decoder(_StoreRequest).decode


class WriteOperation(NamedTuple):
    command: Put | Delete
    mode: WriteMode


class ReadOperation(NamedTuple):
    key: bytes
    consistency: Consistency


_Choice = TypeVar("_Choice", bound=enum.StrEnum)

Operation: TypeAlias = WriteOperation | ReadOperation


class KeyService:
    """Checks requests for keys against the limits, and asks the node."""

    def __init__(self, node: NodePort, settings: HttpSettings) -> None:
        self.node = node
        self.max_key_bytes = settings.max_key_bytes
        self.max_value_bytes = settings.max_value_bytes
        self.default_mode = WriteMode(settings.write_mode)
        self.default_consistency = Consistency(settings.read_consistency)

    def parse(
        self, method: str, path: bytes, query: bytes, *, content_type: bytes, mode_header: bytes, body: bytes
    ) -> Operation:
        """What a request to `/store…` asks for. `path` is as sent, still percent-encoded."""
        is_root = path in {ROOT, PREFIX}
        match method:
            case "POST" if is_root:
                check_content_type(content_type)
                return WriteOperation(self.put_command(body), self.write_mode(query, mode_header))
            case "GET" | "HEAD" if not is_root:
                return ReadOperation(self.key_from_path(path[len(PREFIX) :]), self.consistency(query))
            case "DELETE" if not is_root:
                key = self.key_from_path(path[len(PREFIX) :])
                return WriteOperation(Delete(key), self.write_mode(query, mode_header))
            case _:
                raise MethodNotAllowed(method, "POST" if is_root else "DELETE, GET, HEAD")

    def put_command(self, body: bytes) -> Put:
        """The put that a body `{"key": …, "value": …}` asks for; further fields are ignored."""
        try:
            request = _decode_store(body)
            if not body.isascii():
                # msgspec leaves the inside of a Raw value unchecked for UTF-8 (and checks everything else of it).
                str(body, "utf-8")
        except msgspec.ValidationError as error:
            raise UnprocessableRequest(f"the body is JSON, but not a key with a value: {error}") from None
        except RecursionError:
            raise MalformedRequest("the body is nested too deeply") from None
        except ValueError as error:  # msgspec.DecodeError or UnicodeDecodeError
            raise MalformedRequest(f"the body is not JSON: {error}") from None
        value = bytes(request.value)
        if not value:
            raise UnprocessableRequest("the body has no value")
        if len(value) > self.max_value_bytes:
            raise TooLarge("value", len(value), self.max_value_bytes, "max_value_bytes")
        return Put(self.key_from_text(request.key), value)

    def key_from_text(self, text: str) -> bytes:
        text = text.strip()
        if not text:
            raise UnprocessableRequest("the key is empty")
        try:
            key = text.encode()
        except UnicodeEncodeError:
            raise UnprocessableRequest("the key has half of a surrogate pair") from None
        if len(key) > self.max_key_bytes:
            raise TooLarge("key", len(key), self.max_key_bytes, "max_key_bytes")
        return key

    def key_from_path(self, path: bytes) -> bytes:
        """The key of `/store/<path>`. One trailing slash is not part of it; a key that ends in `/` is sent as `%2F`."""
        path = path.removesuffix(b"/")
        if _PERCENT in path:
            _check_percent(path)
            path = urllib.parse.unquote_to_bytes(path)
        try:
            return self.key_from_text(str(path, "utf-8"))
        except UnicodeDecodeError:
            raise MalformedRequest("the key in the path is not UTF-8") from None

    def write_mode(self, query: bytes, header: bytes) -> WriteMode:
        """The query wins over the header, the header over the setting."""
        text = option(query, "write_mode")
        if text is None:
            if not header:
                return self.default_mode
            text = header.decode("latin-1").strip()
        return _choice(WriteMode, "write_mode", text)

    def consistency(self, query: bytes) -> Consistency:
        text = option(query, "consistency")
        return self.default_consistency if text is None else _choice(Consistency, "consistency", text)

    async def perform(self, operation: Operation) -> Any:
        """The node's answer: a value (None when a read finds nothing) or a write's result. Raises `RaftkvError`.

        A cancelled write may still happen.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(result: Any) -> None:
            if not answered.done():
                answered.set_result(result)

        if isinstance(operation, WriteOperation):
            self.node.submit(operation.command, done, operation.mode)
        elif operation.consistency is Consistency.LOCAL:
            return self.node.local_value(operation.key)
        else:
            self.node.read(operation.key, operation.consistency, done)
        result = await answered
        if isinstance(result, Exception):
            raise result
        return result


def check_content_type(content_type: bytes) -> None:
    """Only JSON, and only when it is said: a page of another origin can send a form, but not this header."""
    media_type = content_type.split(b";", 1)[0].strip().lower()
    if media_type != b"application/json":
        shown = content_type.decode("latin-1") or "missing"
        raise UnsupportedMediaType(f"Content-Type has to be application/json, it is {shown}")


def option(query: bytes, name: str) -> str | None:
    """The first value of `name` in the query string; None when it is not there."""
    if not query:
        return None
    try:
        found = urllib.parse.parse_qs(query.decode("latin-1"), keep_blank_values=True, max_num_fields=64)
    except ValueError:
        raise MalformedRequest("the query string has more than 64 fields") from None
    return found[name][0] if name in found else None


def _choice(kind: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return kind(text.lower())
    except ValueError:
        raise InvalidInput(f"{name} has to be one of {', '.join(kind)}; it is {text!r}") from None


def _check_percent(path: bytes) -> None:
    start = path.find(b"%")
    while start >= 0:
        digits = path[start + 1 : start + 3]
        if len(digits) != 2 or not _HEX.issuperset(digits):
            raise MalformedRequest("a % in the path is not followed by two hexadecimal digits")
        start = path.find(b"%", start + 3)
