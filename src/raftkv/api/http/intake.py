"""What comes in on a connection: parsed, within limits, handed on one complete request at a time.

uvicorn's protocol gives the ASGI side (`RequestResponseCycle`, flow control). Parsing is our own, on the same
httptools parser, for two reasons. Its callbacks are bound methods of lists and a dict, so that a header line
costs no Python frame; and a request is handed on only when it is complete and within its limits, so that
neither lane ever sees half a body.

Invariants
- What is kept of an unfinished request is at most the limits and one read.
- The parser is fed in pieces no longer than the header limit, so an over-long header is noticed early. The exact
  check is made on the whole header (`Request.check_sizes`); the one here only bounds memory.
- After a refusal nothing more is parsed: the rest of the input cannot be trusted, or is what was too much.
"""

from __future__ import annotations

import abc
from collections.abc import Callable

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from raftkv.api.http.request import CHECK_SIZE, PLAIN_HEADERS, Request
from raftkv.api.http.shared import Shared
from raftkv.api.request_errors import ExpectationFailed, HeaderTooLarge, MalformedRequest, UrlTooLong
from raftkv.errors import RaftkvError, TooLarge


class Intake(HttpToolsProtocol, abc.ABC):
    """The reading half of a connection. `connection.Connection` is the other half."""

    def __init__(self, shared: Shared) -> None:
        super().__init__(shared.config, shared.state, {})
        self.shared = shared
        self.limits = shared.limits
        self._urls: list[bytes] = []  # pieces of the URL of the request that is coming in; empty between requests
        self._headers: dict[bytes, bytes] = {}
        self._body_parts: list[bytes] = []
        self._body = bytearray()  # what came of the body in earlier reads
        self._in_body = False
        self._is_header_checked = False
        self._header_bytes = 0
        self._header_of = -1  # the request whose header came in more than one read
        self._begun = 0  # requests that came in completely
        self._is_silent = True  # no byte has come yet
        self.parser = httptools.HttpRequestParser(_Callbacks(self))
        # After "connection: close" further input is discarded here; the parser would call it an error.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed: Callable[[bytes | memoryview], None] = self._feed_first

    # For the other half

    @abc.abstractmethod
    def enqueue(self, request: Request) -> None:
        """A request has come in, or was refused: `request.error` says why."""

    @abc.abstractmethod
    def owe_continue(self) -> None:
        """The client sends the body only after `100 Continue`, which goes out once it is this request's turn."""

    @abc.abstractmethod
    def discard(self, data: bytes | memoryview) -> None:
        """Input that came after `stop_parsing`."""

    @property
    @abc.abstractmethod
    def is_ended(self) -> bool:
        """No answer can go out any more."""

    # From the transport

    def data_received(self, data: bytes) -> None:
        size = self.limits.header_bytes
        if len(data) <= size:
            self._receive(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), size):
            self._receive(view[start : start + size])

    def _receive(self, data: bytes | memoryview) -> None:
        try:
            self._feed(data)
        except httptools.HttpParserUpgrade as upgrade:
            # No other protocol is offered: the request was taken as HTTP (see `take`), and so is what follows.
            rest = bytes(data[int(upgrade.args[0]) :])
            if rest and not self.is_ended:
                self._receive(rest)
            return
        except httptools.HttpParserCallbackError as error:
            # A bug of ours: logged with its answer, and the end of this connection only.
            self.refuse(error.__context__ or error)
            return
        except httptools.HttpParserError as error:
            self.refuse(MalformedRequest(f"this is not HTTP/1.1: {error!s}"))
            return
        if self._urls:
            self._after_part(len(data))

    def _feed_first(self, data: bytes | memoryview) -> None:
        """Notes once that something came, so that no later read has to."""
        self._is_silent = False
        self._feed = self.parser.feed_data
        self._feed(data)

    def _after_part(self, size: int) -> None:
        """A request has begun to come in and is not complete."""
        if self._in_body:
            self._after_part_of_body()
            return
        self._headers[CHECK_SIZE] = b""
        if self._header_of == self._begun:
            self._header_bytes += size
        else:  # this read may hold the end of an earlier request
            self._header_of, self._header_bytes = self._begun, 0
        limits, url_bytes = self.limits, sum(map(len, self._urls))
        if url_bytes > limits.url_bytes:
            self.refuse(UrlTooLong("URL", url_bytes, limits.url_bytes, "max_key_bytes"))
        elif self._header_bytes > limits.header_bytes + limits.url_bytes:
            self.refuse(HeaderTooLarge("header", self._header_bytes, limits.header_bytes, "max_header_bytes"))

    def _after_part_of_body(self) -> None:
        self._body += b"".join(self._body_parts)
        self._body_parts.clear()
        try:
            if not self._is_header_checked:
                self._is_header_checked = True
                self._check_header_before_body()
            self.check_body_size(len(self._body))
        except RaftkvError as error:
            self.refuse(error)

    def _check_header_before_body(self) -> None:
        """Refuse at once what the header alone decides, and say 100 to a client that waits for it."""
        length = self._headers.get(b"Content-Length") or self._headers.get(b"content-length") or b""
        if 0 < len(length) < 5 and PLAIN_HEADERS.issuperset(self._headers):
            return  # a client that sends header and body apart, as many do; up to 9999 bytes are always allowed
        request = self._request(b"".join(self._urls), b"")
        request.check_sizes(self.limits)
        self.check_body_size(request.content_length)
        expect = request.header(b"expect").lower()
        if expect not in {b"", b"100-continue"}:
            raise ExpectationFailed(f"only Expect: 100-continue is known, not {expect.decode('latin-1')!r}")
        if expect and not self._body:
            self.owe_continue()

    def check_body_size(self, size: int) -> None:
        if size > self.limits.body_bytes:
            raise TooLarge("body", size, self.limits.body_bytes, "max_value_bytes")

    # From the parser (see also `_Callbacks`)

    def on_headers_complete(self) -> None:
        self._in_body = True

    def on_message_complete(self) -> None:
        self.take()

    def take(self) -> None:
        """Make a `Request` of what the parser collected, and hand it on."""
        urls = self._urls
        request = self._request(urls[0] if len(urls) == 1 else b"".join(urls), self._whole_body())
        if self.parser.should_upgrade() and (request.content_length or request.header(b"transfer-encoding")):
            # The parser takes what follows an upgrade for another protocol, so this body will not come.
            request.error = MalformedRequest("a request with a body cannot ask for an upgrade")
            request.keep_alive = False
        self.reset()
        self.enqueue(request)

    def reset(self) -> None:
        """The request that came in is taken over: everything is free for the next."""
        self._urls.clear()
        self._headers.clear()
        self._body_parts.clear()
        self._in_body = self._is_header_checked = False
        self._begun += 1

    def _whole_body(self) -> bytes:
        parts = self._body_parts
        if not self._body:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        body, self._body = bytes(self._body + b"".join(parts)), bytearray()
        return body

    def _request(self, url: bytes, body: bytes) -> Request:
        version = self.parser.get_http_version()
        keep_alive = version != "1.0" and self.parser.should_keep_alive()
        return Request(self.parser.get_method(), url, version, self._headers, body, keep_alive=keep_alive)

    # Refusals

    def refuse(self, error: BaseException) -> None:
        """Answer `error` in its turn, and take nothing more."""
        if self.is_ended:
            return
        self.stop_parsing()
        request = Request(b"", b"", "1.1", {}, b"", keep_alive=False)
        request.error = error
        self.enqueue(request)

    def stop_parsing(self) -> None:
        self._feed = self.discard
        self._urls.clear()
        self._body_parts.clear()
        self._body = bytearray()


class _Callbacks:
    """What the parser calls. It looks only for names that are here: no `on_message_begin`, which would cost a call.

    `setdefault` keeps the first of headers with the same name, as the reference does: the published curl commands send
    two Content-Type lines.
    """

    __slots__ = ("on_body", "on_header", "on_headers_complete", "on_message_complete", "on_url")

    def __init__(self, intake: Intake) -> None:
        self.on_url = intake._urls.append
        self.on_header = intake._headers.setdefault
        self.on_headers_complete = intake.on_headers_complete
        self.on_body = intake._body_parts.append
        self.on_message_complete = intake.on_message_complete
