"""One HTTP connection: requests in turn, answers in order, and an orderly end. Both lanes stand on this.

Invariants
- One request at a time: the next is begun when the answer before it is written, so pipelined requests see
  each other's effects and are answered in order, in whichever lanes they run (RFC 9112 §9.3.2).
- What waits is bounded: reading pauses while a request waits behind another one, or while the client does
  not take its answers.
- An answer that ends the connection is followed by a half-close and a bounded discard of further input.

Turned down: handling pipelined writes in parallel. It would fill batches for clients that pipeline, but a failed
write between two that succeed is nothing a client can make sense of.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from raftkv.api.http import routes
from raftkv.api.http.intake import Intake
from raftkv.api.http.limits import LINGER_MAX_BYTES, Waiting
from raftkv.api.http.request import Request
from raftkv.api.http.responses import Answer, error_answer
from raftkv.api.http.shared import Shared
from raftkv.api.request_errors import RequestTimeout
from raftkv.errors import RaftkvError

logger = logging.getLogger("raftkv.http")

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class _AnswerFlow(FlowControl):
    """The ASGI side waits for the reader through this; when to read is the connection's own decision."""

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Connection(Intake):
    """Gives every request to the ASGI application; `fastlane.FastLane` overrides `begin` and takes shortcuts."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared)
        self._is_busy = False  # a request is being answered
        self._is_quiet = True  # nothing is left to do after an answer; else `_settle` looks
        self._backlog: deque[Request] = deque()
        self._is_settling = False
        self._is_reading_paused = False
        self._is_draining = False
        self._has_eof = False
        self._owes_continue = False
        self._is_ending = False
        self._discarded_bytes = 0
        self._cycle: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.flow = _AnswerFlow(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_ending = True
        self._is_quiet = False
        self._backlog.clear()
        self.stop_parsing()
        super().connection_lost(exc)
        self.shared.connection_lost()

    @property
    def is_busy(self) -> bool:
        return self._is_busy

    @property
    def is_ended(self) -> bool:
        return self._is_ending or self.transport.is_closing()

    # Turns

    def enqueue(self, request: Request) -> None:
        self._owes_continue = False
        if self.is_ended:
            return
        if self._backlog or not self._can_begin():
            self._backlog.append(request)
            self._is_quiet = False
            self._pause_reading()
        else:
            self._begin(request)

    def _can_begin(self) -> bool:
        return not (self._is_busy or self.flow.write_paused or self.is_ended)

    def _begin(self, request: Request) -> None:
        try:
            if request.error is not None:
                raise request.error
            request.check_sizes(self.limits)
            self.check_body_size(len(request.body))
            self.begin(request)
        except RaftkvError as error:
            self.answer(request, error_answer(error), routes.OTHER)
        except Exception as error:
            logger.exception("HTTP: cannot handle %s", request.method)
            self.answer(request, error_answer(error), routes.OTHER)

    def begin(self, request: Request) -> None:
        """Start answering; the request is under way until `finished`."""
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
        self.cycle = self._cycle = cycle
        task = self.loop.create_task(cycle.run_asgi(self.app))
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)

    def answer(self, request: Request, answer: Answer, route: str) -> None:
        """Write a whole answer and finish the request."""
        keep_alive = request.keep_alive and not self._is_draining
        if not self.is_ended:
            self.transport.write(
                self.shared.heads.render(answer, keep_alive=keep_alive, with_body=request.method != "HEAD")
            )
        self.shared.metrics.observe(request.method, route, answer.status, time.perf_counter() - request.started_s)
        if not keep_alive:
            self._end()
        self.finished()

    def finished(self) -> None:
        """The request under way is answered."""
        self._is_busy = False
        if not self._is_quiet:
            self.after_answer()

    def after_answer(self) -> None:
        """For what `finished` leaves when the connection is not quiet."""
        if self._is_draining:
            self._end()  # the answer said so; what waits behind it was not begun, and the client knows
        else:
            self._settle()

    def _settle(self) -> None:
        """Begin what waits, as far as it can be; then read on, or end when that was agreed."""
        if self._is_settling:
            return
        self._is_settling = True
        try:
            while self._backlog and self._can_begin():
                self._begin(self._backlog.popleft())
        finally:
            self._is_settling = False
        if self._backlog or not self._can_begin():
            return
        if self._has_eof or (self._is_draining and not self._urls):
            self.transport.close()
            return
        if self._owes_continue:
            self._owes_continue = False
            self.transport.write(CONTINUE)
        self._is_quiet = not self._is_draining
        self._resume_reading()

    def owe_continue(self) -> None:
        self._owes_continue = True
        self._is_quiet = False
        self._settle()

    # Ends

    def _end(self) -> None:
        """Close after what is written, without losing it to a reset (see `limits.LINGER_S`)."""
        if self.is_ended:
            return
        self._is_ending = True
        self._is_quiet = False
        self._backlog.clear()
        self.stop_parsing()
        if self._has_eof or self._is_draining:
            self.transport.close()
            return
        self.transport.write_eof()
        self._resume_reading()

    def discard(self, data: bytes | memoryview) -> None:
        if self._is_ending:
            self._discarded_bytes += len(data)
            if self._discarded_bytes > LINGER_MAX_BYTES:
                self.transport.close()

    def eof_received(self) -> bool:  # type: ignore[override]
        """True keeps our side open: whoever sends a request and half-closes still wants the answer."""
        if self._is_ending or not (self._is_busy or self._backlog):
            return False
        self._has_eof = True
        self._is_quiet = False
        return True

    def shutdown(self) -> None:
        """The server stops: answer what has come in, then close."""
        self._is_draining = True
        self._is_quiet = False
        if self._cycle is not None:
            self._cycle.keep_alive = False
        self._settle()

    # Pauses

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
        self._settle()

    # Time (see `limits.Sweep`)

    def waiting_for(self) -> tuple[Waiting, int]:
        unsent_bytes = self.transport.get_write_buffer_size()
        if unsent_bytes:
            return Waiting.READER, unsent_bytes  # a reader that is slow but takes something goes on
        if self.is_ended:
            kind = Waiting.END
        elif self._is_busy:
            kind = Waiting.ANSWER
        elif self._urls:
            kind = Waiting.BODY if self._in_body else Waiting.HEADER
        elif self._begun or self._is_silent:
            kind = Waiting.REQUEST
        else:
            kind = Waiting.METHOD
        return kind, self._begun

    def timed_out(self, waiting: Waiting) -> None:
        self.shared.metrics.dropped(waiting)
        if waiting in {Waiting.HEADER, Waiting.BODY}:
            text = f"the {waiting.value} of the request did not come in within {self.limits.request_s} s"
            self.refuse(RequestTimeout(f"{text} (setting body_timeout_ms)"))
        elif waiting in {Waiting.METHOD, Waiting.REQUEST}:
            self.transport.close()
        else:
            self.transport.abort()
