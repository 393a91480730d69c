"""The fast lane: requests for keys, answered by the connection itself.

A request costs about ten Python calls here; through ASGI it is a task, a dozen dictionaries and six coroutine
steps (docs/design/http.md has the figures). Two depths:

- `on_message_complete` takes a shortcut for the commonest shapes: nothing but well-known headers, a key of plain
  characters, default options or a consistency by its usual name. What it writes is, for speed, a copy of what
  `operation_answer` says; the contract suite holds the two together. Whatever is unusual or goes wrong before the node
  is asked falls back to `take`.
- `begin` handles every other request for keys with the shared functions, still without a coroutine, and gives
  all else to the ASGI application.

Invariant: a shortcut is taken only when nothing else is under way or waiting on the connection.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from functools import partial
from time import perf_counter
from typing import Any

from raftkv.api.http.connection import Connection
from raftkv.api.http.metrics import BOUNDS_S, RouteStats
from raftkv.api.http.request import PLAIN_HEADERS, PLAIN_OR_CONNECTION, Request
from raftkv.api.http.responses import error_answer, operation_answer, to_json
from raftkv.api.http.routes import STORE, STORE_KEY
from raftkv.api.http.shared import Shared
from raftkv.api.service import PREFIX, ROOT, Operation, ReadOperation
from raftkv.errors import KeyNotFound, RaftkvError
from raftkv.kv import Put
from raftkv.types import Consistency

logger = logging.getLogger("raftkv.http")

PLAIN_KEY = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~:/@,;=+!$&()*"
"""Bytes of a path that stand for themselves in a key and in JSON."""

_SLASH = ord("/")
_LINEARIZABLE = b"?consistency=linearizable"
_LOCAL = b"?consistency=local"

_FETCHED = b'%b%d\r\n\r\n{"message":"success fetching data","data":{"key":"%b","value":%b}}'
_FETCHED_SIZE = len(b'{"message":"success fetching data","data":{"key":"","value":}}')
_STORED = (
    b"%bcontent-length: %d\r\nx-raftkv-revision: %d\r\n\r\n"
    b'{"message":"success persisting data","data":{"key":%b,"value":%b}}'
)
_STORED_SIZE = len(b'{"message":"success persisting data","data":{"key":,"value":}}')


class FastLane(Connection):
    """A connection that answers requests for keys itself."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        service, metrics = shared.service, shared.metrics
        self._node = shared.node
        self._heads = shared.heads
        self._service = service
        self._max_key_bytes = service.max_key_bytes
        self._reads_locally = service.default_consistency is Consistency.LOCAL
        self._mode = service.default_mode
        self._fetched = metrics.stats("GET", STORE_KEY, 200)
        self._stored = metrics.stats("POST", STORE, 200)
        self._written_done = self._written
        self._linearizable_done = self._read_linearizable
        # Of the request under way, when it took the shortcut:
        self._key = b""
        self._value = b""
        self._started_s = 0.0

    def on_message_complete(self) -> None:
        headers, parser = self._headers, self.parser
        if self._is_busy or not self._is_quiet or self._body or not parser.should_keep_alive():
            self.take()
            return
        if not PLAIN_HEADERS.issuperset(headers) and (
            # "Connection: keep-alive" is sent by many clients; one of HTTP/1.0 wants to hear it back.
            not PLAIN_OR_CONNECTION.issuperset(headers) or parser.get_http_version() != "1.1"
        ):
            self.take()
            return
        url = self._urls[-1]
        method = parser.get_method()
        started_s = perf_counter()
        if method == b"GET":
            if url.startswith(PREFIX) and len(self._urls) == 1:
                key = url[7:]
                if not key.translate(None, PLAIN_KEY):
                    if key and key[-1] != _SLASH and len(key) <= self._max_key_bytes and self._reads_locally:
                        self._fetch(key, started_s)
                        return
                elif key.endswith(_LINEARIZABLE):
                    key = key[: -len(_LINEARIZABLE)]
                    if self._is_plain(key):
                        self._start_shortcut(key, started_s)
                        self._read_confirmed(key)
                        return
                elif key.endswith(_LOCAL):
                    key = key[: -len(_LOCAL)]
                    if self._is_plain(key):
                        self._fetch(key, started_s)
                        return
        elif method == b"POST" and url in {ROOT, PREFIX} and len(self._urls) == 1 and len(self._body_parts) == 1:
            content_type = headers.get(b"Content-Type") or headers.get(b"content-type")
            if content_type == b"application/json":
                try:
                    command = self._service.put_command(self._body_parts[0])
                except RaftkvError:
                    self.take()  # finds the same error again, and answers it
                    return
                self._start_shortcut(command.key, started_s)
                self._submit(command)
                return
        self.take()

    # The shortcuts

    def _is_plain(self, key: bytes) -> bool:
        return (
            key != b"" and key[-1] != _SLASH and len(key) <= self._max_key_bytes and not key.translate(None, PLAIN_KEY)
        )

    def _fetch(self, key: bytes, started_s: float) -> None:
        node, heads = self._node, self._heads
        try:
            value = node.local_value(key)
        except Exception:  # noqa: BLE001 - `begin` meets it again, and answers it
            value = None
        if value is None:
            self.take()
            return
        position = node.position()
        if position is not heads.position:
            heads.refresh(position)
        self.reset()
        self.transport.write(_FETCHED % (heads.local_read, _FETCHED_SIZE + len(key) + len(value), key, value))
        stats = self._fetched
        seconds = perf_counter() - started_s
        stats.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        stats.seconds += seconds

    def _start_shortcut(self, key: bytes, started_s: float) -> None:
        self.reset()
        self._key = key
        self._started_s = started_s
        self._is_busy = True

    def _submit(self, command: Put) -> None:
        self._value = command.value
        try:
            self._node.submit(command, self._written_done, self._mode)
        except Exception as error:
            logger.exception("HTTP: the node cannot take a write")
            self._answer_error("POST", STORE, error)

    def _read_confirmed(self, key: bytes) -> None:
        try:
            self._node.read(key, Consistency.LINEARIZABLE, self._linearizable_done)
        except Exception as error:
            logger.exception("HTTP: the node cannot take a read")
            self._answer_error("GET", STORE_KEY, error)

    def _written(self, result: Any) -> None:
        """The node's answer to a put. Must not raise: it runs among the answers of a whole batch."""
        try:
            if self._is_ending:
                return
            if isinstance(result, BaseException):
                self._answer_error("POST", STORE, result)
                return
            heads, value = self._heads, self._value
            position = self._node.position()
            if position is not heads.position:
                heads.refresh(position)
            key = to_json(self._key.decode())
            size = _STORED_SIZE + len(key) + len(value)
            self.transport.write(_STORED % (heads.write, size, result.revision, key, value))
            self._count(self._stored)
        except Exception:
            logger.exception("HTTP: cannot answer a write")
            self.transport.abort()
        self._is_busy = False
        if not self._is_quiet:
            self.after_answer()

    def _read_linearizable(self, result: Any) -> None:
        """The node's answer to a linearizable read that took the shortcut; as `_written`."""
        try:
            if self._is_ending:
                return
            if result is None or isinstance(result, BaseException):
                error = KeyNotFound(self._key.decode()) if result is None else result
                self._answer_error("GET", STORE_KEY, error)
                return
            heads, key, value = self._heads, self._key, result.value
            position = self._node.position()
            if position is not heads.position:
                heads.refresh(position)
            size = _FETCHED_SIZE + len(key) + len(value)
            self.transport.write(_FETCHED % (heads.linearizable_read, size, key, value))
            self._count(self._fetched)
        except Exception:
            logger.exception("HTTP: cannot answer a read")
            self.transport.abort()
        self._is_busy = False
        if not self._is_quiet:
            self.after_answer()

    def _answer_error(self, method: str, route: str, error: BaseException) -> None:
        request = Request(method.encode(), b"", "1.1", {}, b"", keep_alive=True)
        request.started_s = self._started_s
        self.answer(request, error_answer(error), route)

    def _count(self, stats: RouteStats) -> None:
        seconds = perf_counter() - self._started_s
        stats.buckets[bisect_left(BOUNDS_S, seconds)] += 1
        stats.seconds += seconds

    # Everything else

    def begin(self, request: Request) -> None:
        path = request.path
        if request.method == "HEAD" or not (path == ROOT or path.startswith(PREFIX)):
            super().begin(request)
            return
        route = STORE if path in {ROOT, PREFIX} else STORE_KEY
        try:
            operation = self._service.parse(
                request.method,
                path,
                request.query,
                content_type=request.header(b"content-type"),
                mode_header=request.header(b"x-raftkv-write-mode"),
                body=request.body,
            )
            if isinstance(operation, ReadOperation) and operation.consistency is Consistency.LOCAL:
                answer = operation_answer(operation, self._node.local_value(operation.key))
                self.answer(request, answer, route)
                return
        except RaftkvError as error:
            self.answer(request, error_answer(error), route)
            return
        self._is_busy = True
        done = partial(self._answer_operation, request, operation, route)
        if isinstance(operation, ReadOperation):
            self._node.read(operation.key, operation.consistency, done)
        else:
            self._node.submit(operation.command, done, operation.mode)

    def _answer_operation(self, request: Request, operation: Operation, route: str, result: Any) -> None:
        """The node's answer to a request that did not take the shortcut. Must not raise (see `_written`)."""
        try:
            if isinstance(result, BaseException):
                answer = error_answer(result, operation, request.url)
            else:
                answer = operation_answer(operation, result)
        except KeyNotFound as error:
            answer = error_answer(error)
        except Exception as error:
            logger.exception("HTTP: cannot answer %s %s", request.method, route)
            answer = error_answer(error)
        self.answer(request, answer, route)
