"""Which server to ask, and whether to ask again: the client's whole policy, without any input or output.

`route` is a generator. It yields what to do next, an `Attempt` or a `Pause`, is sent what came of it, and returns
the answer or raises. The sync and the async client differ only in how they carry out the steps, and tests drive
the policy alone.

Invariant: a write is sent again only when the try before it surely had no effect, that is when the connection
could not be made or the server said `rejected`. Turned down: retrying "idempotent" writes. A put that is sent
again after another client's put undoes that other put.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeAlias
from urllib.parse import quote, urlencode, urlsplit

from raftkv.client.replies import Answer, error_of
from raftkv.errors import InvalidInput, NotLeader, OutcomeUnknown, Unavailable

PAUSE_FIRST_SECONDS = 0.02
PAUSE_LAST_SECONDS = 0.5
LAST_TRY_SECONDS = 1.0


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """One request, wherever it is sent to. `target` is percent-encoded and starts with a slash."""

    method: str
    target: str
    body: bytes = b""
    is_write: bool = False
    key: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """Send `call` to `server`, a base URL without a path, and wait `timeout_seconds` at most."""

    server: str
    call: Call
    timeout_seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclasses.dataclass(frozen=True, slots=True)
class NotSent:
    """No connection could be made: nothing happened."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class NoAnswer:
    """The request may have arrived, and no answer came."""

    reason: str


Step: TypeAlias = Attempt | Pause
Result: TypeAlias = Answer | NotSent | NoAnswer | None


class Servers:
    """The servers of one cluster; the one that worked last is asked first."""

    def __init__(self, servers: str | Sequence[str]) -> None:
        parts = servers.split(",") if isinstance(servers, str) else servers
        self._urls = [base_url(part.strip()) for part in parts if part.strip()]
        if not self._urls:
            raise InvalidInput("no server was given; name at least one as host:port")
        self._preferred = self._urls[0]

    @property
    def preferred(self) -> str:
        return self._preferred

    def prefer(self, url: str) -> None:
        self._preferred = url

    def after(self, url: str) -> str:
        """The next one to try; starts over after the last."""
        position = self._urls.index(url) + 1 if url in self._urls else 0
        return self._urls[position % len(self._urls)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._urls)


def base_url(server: str) -> str:
    """`host:port` or a URL, as a base URL. Raises InvalidInput."""
    is_url = "://" in server
    try:
        parts = urlsplit(server if is_url else f"http://{server}")
        # A bare name would be asked at port 80, where no node is; in a URL that may be meant, of a proxy say.
        is_port_clear = parts.port is not None or is_url
        is_base = parts.scheme in {"http", "https"} and parts.hostname and not parts.path.strip("/") and not parts.query
        if is_base and is_port_clear:
            return f"{parts.scheme}://{parts.netloc}"
    except ValueError:
        pass  # such as a port over 65535
    raise InvalidInput(f"{server!r} is not a server: give host:port or http://host:port")


def key_target(key: str, **query: str) -> str:
    """The path of a key. Dots are encoded too, because a path `/store/..` would be taken for `/`."""
    encoded = quote(key, safe="").replace(".", "%2E")
    return f"/store/{encoded}" + (f"?{urlencode(query)}" if query else "")


def route(
    call: Call, servers: Servers, timeout_seconds: float, clock: Callable[[], float]
) -> Generator[Step, Result, Answer]:
    """Carry out `call` within `timeout_seconds` by `clock`; see the module's invariant."""
    deadline = clock() + timeout_seconds
    # A write that is sent with too little time left ends as "outcome unknown", which is worse than a clear refusal.
    last_start = deadline - min(timeout_seconds / 4, LAST_TRY_SECONDS)
    server = servers.preferred
    asked: set[str] = set()
    failures = _Failures()
    pause_seconds = PAUSE_FIRST_SECONDS
    while True:
        result = yield Attempt(server, call, max(deadline - clock(), 0.001))
        if isinstance(result, Answer) and not _redirect(result):
            error = error_of(result, call.key, call.is_write)
            if error is None:
                servers.prefer(server)
                return result
            if not isinstance(error, Unavailable):
                raise error
            failure: Unavailable = error
        else:
            failure = _failure(server, call, result)
        asked.add(server)
        failures.add(server, failure, is_answer=isinstance(result, Answer))
        following = _leader_url(failure) or servers.after(server)
        if following in asked:
            following = next((url for url in servers if url not in asked), "")
        if not following:
            # Everyone was asked; what is in the way, such as an election, needs time.
            if clock() + pause_seconds >= last_start:
                raise failures.told()
            yield Pause(pause_seconds * random.uniform(0.5, 1.0))
            pause_seconds = min(pause_seconds * 2, PAUSE_LAST_SECONDS)
            asked.clear()
            following = _leader_url(failure) or servers.after(server)
        if clock() >= last_start:
            raise failures.told()
        server = following


class _Failures:
    """Why no server did it. A server's own word (no leader, say) tells more than that another cannot be reached, so
    it decides the error, and the unreachable ones are named behind it."""

    def __init__(self) -> None:
        self._said: Unavailable | None = None
        self._unreached: dict[str, str] = {}

    def add(self, server: str, failure: Unavailable, *, is_answer: bool) -> None:
        self._unreached.pop(server, None)
        if is_answer:
            self._said = failure
        else:
            self._unreached[server] = str(failure)

    def told(self) -> Unavailable:
        unreached = "; ".join(self._unreached.values())
        if self._said is None:
            return Unavailable(unreached)
        if unreached:
            self._said.args = (f"{self._said} ({unreached})",)
        return self._said


def _failure(server: str, call: Call, result: Result) -> Unavailable:
    """Why to go on elsewhere; raises OutcomeUnknown where that must not be done."""
    if isinstance(result, NoAnswer) and call.is_write:
        raise OutcomeUnknown(f"{server}: {result.reason}; the write may have happened, or may yet happen")
    if isinstance(result, Answer):
        return NotLeader(leader_address=_redirect(result))
    return Unavailable(f"{server}: {result.reason if result is not None else 'no result'}")


def _redirect(answer: Answer) -> str:
    """The base URL of the server that a 307 or 308 names, empty for any other answer."""
    location = answer.headers.get("location", "")
    if answer.status not in {307, 308} or not location:
        return ""
    parts = urlsplit(location)
    return f"{parts.scheme}://{parts.netloc}" if parts.scheme in {"http", "https"} and parts.netloc else ""


def _leader_url(error: Unavailable) -> str:
    if not isinstance(error, NotLeader) or not error.leader_address:
        return ""
    try:
        return base_url(error.leader_address)
    except InvalidInput:
        return ""
