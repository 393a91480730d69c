"""A request that came in completely (or is refused), as both lanes read it."""

from __future__ import annotations

import time
import urllib.parse
from typing import Any

import httptools

from raftkv.api.http.limits import Limits
from raftkv.api.request_errors import HeaderTooLarge, MalformedRequest, UrlTooLong

CHECK_SIZE = b""
"""No header has an empty name. The connection adds it to one that came in several reads, which keeps the request
out of the shortest path, so that `check_sizes` looks at it."""

_CONNECTION = frozenset([b"Connection", b"connection"])
_HARMLESS = ("Host", "User-Agent", "Accept", "Accept-Encoding", "Accept-Language", "Content-Type", "Content-Length")
PLAIN_HEADERS = frozenset(name.encode() for header in _HARMLESS for name in (header, header.lower()))
"""Headers that change nothing here but for type and length of the body, as clients usually write them."""

PLAIN_OR_CONNECTION = PLAIN_HEADERS | _CONNECTION


class Request:
    """`headers` has lower-case names; of equal ones the first is kept, so that two Content-Type lines work."""

    __slots__ = (
        "_is_in_pieces",
        "body",
        "error",
        "headers",
        "keep_alive",
        "method",
        "path",
        "query",
        "started_s",
        "url",
        "version",
    )

    def __init__(
        self, method: bytes, url: bytes, version: str, headers: dict[bytes, bytes], body: bytes, *, keep_alive: bool
    ) -> None:
        self.method = method.decode("ascii")
        self.url = url
        self.version = version
        self.headers: dict[bytes, bytes] = {}
        for name, value in headers.items():
            self.headers.setdefault(name.lower(), value)
        self._is_in_pieces = self.headers.pop(CHECK_SIZE, None) is not None
        self.body = body
        self.keep_alive = keep_alive
        self.error: BaseException | None = None
        self.started_s = time.perf_counter()
        self.path, self.query = url, b""
        if not url.startswith(b"/"):
            self._split_absolute()
        elif b"?" in url:
            self.path, _, self.query = url.partition(b"?")

    def _split_absolute(self) -> None:
        """`http://host/path?query` as proxies send it, `*` of OPTIONS, `host:port` of CONNECT; or refused here."""
        if b"://" not in self.url:
            return
        try:
            parts = httptools.parse_url(self.url)
        except httptools.HttpParserInvalidURLError:
            self.error = MalformedRequest("the URL cannot be read")
        else:
            self.path, self.query = parts.path or b"/", parts.query or b""

    def header(self, name: bytes) -> bytes:
        return self.headers.get(name, b"")

    @property
    def content_length(self) -> int:
        """The parser has checked that it is a number."""
        return int(self.headers.get(b"content-length", b"0") or b"0")

    def check_sizes(self, limits: Limits) -> None:
        if len(self.url) > limits.url_bytes:
            raise UrlTooLong("URL", len(self.url), limits.url_bytes, "max_key_bytes")
        if not self._is_in_pieces:
            return  # one read is never longer than the limit (see `Intake.data_received`)
        size = sum(len(name) + len(value) + 4 for name, value in self.headers.items())
        if size > limits.header_bytes:
            raise HeaderTooLarge("header", size, limits.header_bytes, "max_header_bytes")

    def scope(self, server: Any, client: Any, scheme: str) -> dict[str, Any]:
        """The ASGI scope of the slow lane."""
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": self.version,
            "method": self.method,
            "scheme": scheme,
            "path": urllib.parse.unquote(self.path.decode("latin-1")),
            "raw_path": self.path,
            "query_string": self.query,
            "root_path": "",
            "headers": list(self.headers.items()),
            "server": server,
            "client": client,
            "state": {},
        }
