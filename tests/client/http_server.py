"""A tiny HTTP server whose answers a test writes down beforehand."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Self


class Seen(NamedTuple):
    """A request as it came in."""

    method: str
    target: str
    body: bytes


class Reply(NamedTuple):
    status: int
    body: bytes
    headers: Mapping[str, str] = {}


def ok(data: Any, message: str = "fine") -> Reply:
    return Reply(200, json.dumps({"message": message, "data": data}).encode())


def refused(status: int, code: str, outcome: str = "rejected", **more: str) -> Reply:
    return Reply(status, json.dumps({"error": f"this is {code}", "code": code, "outcome": outcome, **more}).encode())


class HangUp:
    """Take the request and close the connection without an answer."""


class Stall:
    """Take the request and answer nothing until the server closes."""


Script = Reply | HangUp | Stall | Callable[[Seen], Reply]


class ScriptedServer:
    """Answers the n-th request with the n-th part of its script, and the last part for ever after."""

    def __init__(self, *script: Script) -> None:
        self._script = list(script)
        self._closing = threading.Event()
        self.seen: list[Seen] = []
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                seen = Seen(self.command, self.path, body)
                part = outer._script[min(len(outer.seen), len(outer._script) - 1)]
                outer.seen.append(seen)
                if isinstance(part, Stall):
                    outer._closing.wait()
                if isinstance(part, HangUp | Stall):
                    self.close_connection = True
                    return
                reply = part if isinstance(part, Reply) else part(seen)
                self.send_response(reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            do_GET = do_POST = do_DELETE = answer  # noqa: N815  # http.server finds its methods by these names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
                """Tests need no access log."""

        return Handler
