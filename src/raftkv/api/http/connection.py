"""One HTTP connection: what comes in, within limits, answered in order. Both lanes stand on this.

uvicorn's protocol gives the ASGI side (`RequestResponseCycle`, flow control, shutdown). Parsing is our own
on the same httptools parser, for two reasons. Its callbacks are bound methods of a list and a dict, so that
a header line costs no Python frame; and a request is handed on only when it is complete and within its
limits, so that neither lane ever sees half a body.

Invariants
- One request at a time: the next is begun when the answer before it is written, so pipelined requests see
  each other's effects and are answered in order, in whichever lanes they run (RFC 9112 §9.3.2).
- What is read but not begun is bounded: reading pauses while a request waits behind another one, or while
  the client does not take its answers.
- An answer that ends the connection is followed by a half-close and a bounded discard of further input.

Turned down: handling pipelined writes in parallel. It would fill batches for clients that pipeline, but a failed
write between two that succeed is nothing a client can make sense of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import Any

import httptools
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from raftkv.api.http.limits import LINGER_MAX_BYTES, Waiting
from raftkv.api.http.request import CHECK_SIZE, Request
from raftkv.api.http.responses import Answer, error_answer
from raftkv.api.http.shared import Shared
from raftkv.api.request_errors import (
    ExpectationFailed,
    HeaderTooLarge,
    MalformedRequest,
    RequestTimeout,
    UrlTooLong,
)
from raftkv.errors import RaftkvError, TooLarge

logger = logging.getLogger("raftkv.http")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _AnswerFlow(FlowControl):
    """The ASGI side waits for the reader through this; when to read is the connection's own decision."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection(HttpToolsProtocol):
    """All requests go to the ASGI application; `fastlane.FastLane` overrides `on_message_complete` and `begin`."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.config, shared.state, {})
        self.shared = shared
        self.limits = shared.limits
        self._urls: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._body_parts: list[bytes] = []
        self._body = bytearray()  # the part of an unfinished body that came with earlier reads
        self._in_body = False
        self._body_checked = False
        self._header_bytes = 0
        self._header_of = -1  # the request whose header came in more than one read
        self._begun = 0  # requests that came in completely

        self._is_busy = False
        self._is_quiet = True  # nothing is left to do after an answer; else `_settle` looks
        self._backlog: deque[Request] = deque()
        self._is_settling = False
        self._is_reading_paused = False
        self._is_draining = False
        self._has_eof = False
        self._owes_continue = False
        self._is_ending = False
        self._discarded_bytes = 0
        self._restart_parser()

    def _restart_parser(self) -> None:
        """The parser looks its callbacks up once, when it is made; `setdefault` keeps the first of equal headers."""
        self.on_url = self._urls.append  # type: ignore[method-assign]
        self.on_header = self._headers.setdefault  # type: ignore[method-assign,assignment]
        self.on_body = self._body_parts.append  # type: ignore[method-assign]
        self.parser = httptools.HttpRequestParser(_Callbacks(self))
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed = self.parser.feed_data

    # What comes in

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _AnswerFlow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_quiet = False
        self._is_ending = True
        self._backlog.clear()
        super().connection_lost(exc)
        self._feed = _ignore
        self.shared.connection_lost(self)

    def data_received(self, data: bytes) -> None:
        if len(data) > self.limits.header_bytes:
            # In pieces, so that an over-long header is noticed before all of it is parsed.
            view, size = memoryview(data), self.limits.header_bytes
            for start in range(0, len(data), size):
                self._receive(view[start : start + size])
        else:
            self._receive(data)

    def _receive(self, data: bytes | memoryview) -> None:
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._after_upgrade(data, int(upgrade.args[0]))
            return
        except httptools.HttpParserCallbackError as error:
            # A bug of ours: an answer, and the end of this connection only.
            logger.exception("HTTP: cannot handle a request", exc_info=error.__context__ or error)
            self._refuse(error.__context__ or error)
            return
        except httptools.HttpParserError as error:
            self._refuse(MalformedRequest(f"not HTTP: {error or type(error).__name__}"))
            return
        if self._urls:
            self._after_part(len(data))

    def _after_part(self, size: int) -> None:
        """A request has begun to come in and is not complete."""
        if self._in_body:
            self._after_part_of_body()
            return
        self._headers[CHECK_SIZE] = b""
        if self._header_of == self._begun:
            self._header_bytes += size
        else:  # this read may hold the end of an earlier request; `Request.check_sizes` is exact later
            self._header_of, self._header_bytes = self._begun, 0
        if sum(map(len, self._urls)) > self.limits.url_bytes:
            self._refuse(UrlTooLong("URL", sum(map(len, self._urls)), self.limits.url_bytes, "max_key_bytes"))
        elif self._header_bytes > self.limits.header_bytes + self.limits.url_bytes:
            self._refuse(HeaderTooLarge("header", self._header_bytes, self.limits.header_bytes, "max_header_bytes"))

    def _after_part_of_body(self) -> None:
        self._body += b"".join(self._body_parts)
        self._body_parts.clear()
        if not self._body_checked:
            self._body_checked = True
            if not self._check_header_before_body():
                return
        if len(self._body) > self.limits.body_bytes:
            self._refuse(TooLarge("body", len(self._body), self.limits.body_bytes, "max_value_bytes"))

    def _check_header_before_body(self) -> bool:
        """Answer at once what the header alone decides, and 100 to a client that waits for it."""
        request = self._request(b"".join(self._urls), b"")
        try:
            request.check_sizes(self.limits)
            size = request.content_length
            if size > self.limits.body_bytes:
                raise TooLarge("body", size, self.limits.body_bytes, "max_value_bytes")
            expect = request.header(b"expect").lower()
            if expect not in {b"", b"100-continue"}:
                raise ExpectationFailed(f"only Expect: 100-continue is known, not {expect.decode('latin-1')!r}")
        except RaftkvError as error:
            self._refuse(error)
            return False
        if expect and not self._body:
            self._owes_continue = True
            self._is_quiet = False
            if not self._is_busy:
                self._settle()
        return True

    def _after_upgrade(self, data: bytes | memoryview, parsed: int) -> None:
        """No other protocol is offered: the request was handled as HTTP, and the connection goes on if it can."""
        if self._is_ending or self.transport.is_closing():
            return
        rest = bytes(data[parsed:])
        if rest:
            self._receive(rest)

    def eof_received(self) -> bool:
        """True keeps our side open: whoever sends a request and half-closes still wants the answer."""
        if self._is_ending or not (self._is_busy or self._backlog):
            return False
        self._has_eof = True
        self._is_quiet = False
        return True

    # Callbacks of the parser (see also `_restart_parser`)

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_message_complete(self) -> None:
        self.take()

    def take(self) -> None:
        """The parser has a whole request: begin it, or let it wait for its turn."""
        urls = self._urls
        url = urls[0] if len(urls) == 1 else b"".join(urls)
        request = self._request(url, self._whole_body())
        if self.parser.should_upgrade() and (request.content_length or request.header(b"transfer-encoding")):
            # The parser takes what follows an upgrade for another protocol, so this body will not come.
            request.error = MalformedRequest("a request with a body cannot ask for an upgrade")
            request.keep_alive = False
        urls.clear()
        self._headers.clear()
        self._in_body = self._body_checked = self._owes_continue = False
        self._begun += 1
        self._enqueue(request)

    def _whole_body(self) -> bytes:
        parts = self._body_parts
        if self._body:
            self._body += b"".join(parts)
            body = bytes(self._body)
            self._body = bytearray()
        else:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
        parts.clear()
        return body

    def _request(self, url: bytes, body: bytes) -> Request:
        version = self.parser.get_http_version()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        return Request(self.parser.get_method(), url, version, self._headers, body, keep_alive=keep_alive)

    # Turns

    def _enqueue(self, request: Request) -> None:
        if self._is_ending:
            return
        if self._is_busy or self.flow.write_paused or self._backlog:
            self._backlog.append(request)
            self._is_quiet = False
            self._pause_reading()
        else:
            self._begin(request)

    def _begin(self, request: Request) -> None:
        try:
            if request.error is not None:
                raise request.error
            request.check_sizes(self.limits)
            if len(request.body) > self.limits.body_bytes:
                raise TooLarge("body", len(request.body), self.limits.body_bytes, "max_value_bytes")
            self.begin(request)
        except RaftkvError as error:
            self.answer(request, error_answer(error), "other")
        except Exception as error:
            logger.exception("HTTP: cannot handle %s", request.method)
            self.answer(request, error_answer(error), "other")

    def begin(self, request: Request) -> None:
        """Start answering; `_is_busy` stays true until `finished`."""
        self._is_busy = True
        cycle = RequestResponseCycle(
            scope=request.scope(self.server, self.client, self.scheme or "http"),  # type: ignore[arg-type]
            transport=self.transport,
            flow=self.flow,
            logger=logger,
            access_logger=self.access_logger,
            access_log=False,
            default_headers=self.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=False,
            keep_alive=request.keep_alive and not self._is_draining,
            on_response=self.finished,
        )
        cycle.body = bytearray(request.body)
        cycle.more_body = False
        cycle.message_event.set()
        self.cycle = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def answer(self, request: Request, answer: Answer, route: str) -> None:
        """Write a whole answer and finish the request."""
        keep_alive = request.keep_alive and not self._is_draining
        if not self.transport.is_closing():
            head = self.shared.heads.render(answer, keep_alive=keep_alive, with_body=request.method != "HEAD")
            self.transport.write(head)
        self.shared.metrics.observe(request.method, route, answer.status, time.perf_counter() - request.started_s)
        if not keep_alive:
            self._end()
        self.finished()

    def finished(self) -> None:
        """The request under way is answered."""
        self.server_state.total_requests += 1
        self._is_busy = False
        if not self._is_quiet:
            self._settle()

    def _settle(self) -> None:
        """Begin what waits, as far as it can be; then read on, or end when that was agreed."""
        if self._is_settling or self._is_ending:
            return
        self._is_settling = True
        try:
            while self._backlog and not self._is_busy and not self.flow.write_paused and not self._is_ending:
                self._begin(self._backlog.popleft())
        finally:
            self._is_settling = False
        if self._is_busy or self._backlog or self._is_ending or self.transport.is_closing():
            return
        if self._has_eof or (self._is_draining and not self._urls):
            self.transport.close()
            return
        if self._owes_continue:
            self._owes_continue = False
            self.transport.write(CONTINUE)
        if not self.flow.write_paused:
            self._is_quiet = not self._is_draining
            self._resume_reading()

    # Refusals and ends

    def _refuse(self, error: BaseException) -> None:
        """Answer `error` in its turn and take nothing more: the rest of the input cannot be trusted or is too much."""
        if self._is_ending or self.transport.is_closing():
            return
        self._feed = self._discard
        self._urls.clear()
        self._body_parts.clear()
        self._body = bytearray()
        self._owes_continue = False
        request = Request(b"", b"", "1.1", {}, b"", keep_alive=False)
        request.error = error
        self._enqueue(request)

    def _end(self) -> None:
        """Close after what is written, without losing it to a reset (see `limits.LINGER_S`)."""
        if self._is_ending:
            return
        self._is_ending = True
        self._is_quiet = False
        self._backlog.clear()
        self._feed = self._discard
        self._urls.clear()
        if self._has_eof or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.write_eof()
        self._resume_reading()

    def _discard(self, data: bytes | memoryview) -> None:
        self._discarded_bytes += len(data)
        if self._is_ending and self._discarded_bytes > LINGER_MAX_BYTES:
            self.transport.close()

    def _pause_reading(self) -> None:
        if not self._is_reading_paused and not self.transport.is_closing():
            self._is_reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._is_reading_paused and not self.transport.is_closing():
            self._is_reading_paused = False
            self.transport.resume_reading()

    def pause_writing(self) -> None:
        self.flow.pause_writing()
        self._is_quiet = False
        self._pause_reading()

    def resume_writing(self) -> None:
        self.flow.resume_writing()
        if not self._is_busy:
            self._settle()

    def shutdown(self) -> None:
        """The server stops: answer what has come in, then close."""
        self._is_draining = True
        self._is_quiet = False
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False
        if not self._is_busy:
            self._settle()

    # Time (see `limits.Sweep`)

    @property
    def is_busy(self) -> bool:
        return self._is_busy

    def waiting_for(self) -> tuple[Waiting, int]:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes:
            return Waiting.READER, unsent_bytes  # a reader that is slow but takes something goes on
        if self._is_ending or self.transport.is_closing():
            kind = Waiting.END
        elif self._is_busy:
            kind = Waiting.ANSWER
        elif self._urls:
            kind = Waiting.BODY if self._in_body else Waiting.HEADER
        else:
            # A connection that never sent anything whole gets the shorter time: it may be half a method name.
            kind = Waiting.REQUEST if self._begun else Waiting.HEADER
        return kind, self._begun

    def timed_out(self, waiting: Waiting) -> None:
        self.shared.metrics.dropped(waiting)
        if waiting in {Waiting.HEADER, Waiting.BODY}:
            self._refuse(
                RequestTimeout(f"the {waiting.value} of the request did not come in {self.limits.request_s} s")
            )
        elif waiting is Waiting.REQUEST:
            self.transport.close()
        else:
            self.transport.abort()


class _Callbacks:
    """What the parser sees: without `on_message_begin`, which would cost a call for each request."""

    __slots__ = ("on_body", "on_header", "on_headers_complete", "on_message_complete", "on_url")

    def __init__(self, connection: Connection) -> None:
        self.on_url = connection.on_url
        self.on_header = connection.on_header
        self.on_headers_complete = connection.on_headers_complete
        self.on_body = connection.on_body
        self.on_message_complete = connection.on_message_complete


def _ignore(_data: Any) -> None:
    pass
