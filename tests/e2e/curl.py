"""Requests as the published curl commands send them: raw bytes of ours, both Content-Type headers.

Turned down: an HTTP library. Most of them merge or drop the second Content-Type header, which is the
very thing that has to work, and follow redirects or retry on their own.
"""

from __future__ import annotations

import dataclasses
import http.client
import json
from collections.abc import Sequence
from typing import Any, Self

Headers = Sequence[tuple[str, str]]
PUBLISHED_HEADERS: Headers = (("Content-Type", "application/json"), ("Content-Type", "text/plain"))
TIMEOUT_S = 10.0


class NoAnswer(Exception):
    """The connection was refused, ended or stayed silent; what happened to the request is not known."""


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def data(self) -> Any:
        """The field `data` of a 200; fails with the whole answer when it is none."""
        assert self.status == 200, self
        return self.json["data"]

    @property
    def error(self) -> str:
        assert self.status >= 400, self
        return str(self.json["error"])

    @property
    def outcome(self) -> str:
        return str(self.json.get("outcome", "")) if self.status >= 400 else "done"

    @property
    def is_marked_stale(self) -> bool:
        return "x-raftkv-stale" in self.headers


class Connection:
    """A kept connection to one address; it opens itself again after an error."""

    def __init__(self, address: str, timeout_s: float = TIMEOUT_S) -> None:
        self._http = http.client.HTTPConnection(address, timeout=timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, body: object = None, headers: Headers = PUBLISHED_HEADERS) -> Answer:
        """`body` is sent as it is when it is bytes, and as JSON otherwise. Raises NoAnswer."""
        self.send(method, path, body, headers)
        return self.receive()

    def send(self, method: str, path: str, body: object = None, headers: Headers = PUBLISHED_HEADERS) -> None:
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        try:
            self._http.putrequest(method, path, skip_accept_encoding=True)
            for name, value in (("User-Agent", "curl/7.88.1"), ("Accept", "*/*"), *headers):
                self._http.putheader(name, value)
            if body is not None:
                self._http.putheader("Content-Length", str(len(data)))
            self._http.endheaders(data or None)
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise NoAnswer(f"{method} {path}: {error!r}") from error

    def receive(self) -> Answer:
        try:
            response = self._http.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._http.close()
            raise NoAnswer(repr(error)) from error
        return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def curl(
    method: str,
    address: str,
    path: str,
    body: object = None,
    *,
    headers: Headers = PUBLISHED_HEADERS,
    timeout_s: float = TIMEOUT_S,
) -> Answer:
    """One request on a connection of its own. Raises NoAnswer."""
    with Connection(address, timeout_s) as connection:
        return connection.request(method, path, body, headers)
