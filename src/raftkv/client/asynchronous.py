"""`AsyncClient`: the calls of `calls`, routed by `routing`, carried by httpx on asyncio."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import httpx

from raftkv.client import calls, replies
from raftkv.client.httpx_adapter import answer_of, client_arguments, failure_of, request_arguments
from raftkv.client.replies import Answer, GetResult, JoinResult, MemberInfo, Position
from raftkv.client.routing import Attempt, Call, Result, Servers, route
from raftkv.types import Consistency


class AsyncClient:
    """A client of one cluster; use it with `async with`, or call `aclose`.

    `servers` are `host:port` texts, a sequence of them or one text with commas; any members will do.
    `timeout_seconds` bounds a whole call, with all its tries.

    Every call raises `Unavailable` (or a child) when it surely did not happen and may be tried again, another
    `Rejected` when the request itself is wrong, and `OutcomeUnknown` when a write may or may not have happened.
    A cancelled write has an unknown outcome.
    """

    def __init__(self, servers: str | Sequence[str], *, timeout_seconds: float = 10.0) -> None:
        self._servers = Servers(servers)
        self._timeout_seconds = timeout_seconds
        self._http = httpx.AsyncClient(**client_arguments())

    async def put(self, key: str, value: Any) -> Position:
        """Store any value that JSON can hold; durable on a majority when this returns."""
        return replies.position(await self._run(calls.put(key, value)))

    async def put_json(self, key: str, json_text: str) -> Position:
        """As `put`, with the value as JSON text, which is stored exactly as given."""
        return replies.position(await self._run(calls.put_json(key, json_text)))

    async def get(self, key: str, consistency: Consistency | str | None = None) -> GetResult:
        """The value of a key. Without `consistency` the server's default applies (local, unless configured)."""
        return replies.stored(await self._run(calls.get(key, consistency)))

    async def delete(self, key: str) -> Position:
        """Remove a key, present or not."""
        return replies.position(await self._run(calls.delete(key)))

    async def stats(self) -> dict[str, Any]:
        """What the first server that answers tells of itself."""
        return dict(replies.data_of(await self._run(calls.stats())))

    async def members(self) -> list[MemberInfo]:
        return replies.members_of(await self.stats())

    async def join(self, node_id: str, raft_address: str) -> JoinResult:
        """Make the node a member. The server waits its `join_timeout_ms`, so allow for that in `timeout_seconds`."""
        return replies.joined(await self._run(calls.join(node_id, raft_address)))

    async def remove(self, node_id: str) -> dict[str, Any]:
        """Remove the member; returns the stats of the node that answered."""
        return dict(replies.data_of(await self._run(calls.remove(node_id))))

    async def transfer(self, node_id: str | None = None) -> str:
        """Hand leadership to that voter, or to whoever is most up to date; returns what the server says of it."""
        return replies.message_of(await self._run(calls.transfer(node_id)))

    async def aclose(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, call: Call) -> Answer:
        steps = route(call, self._servers, self._timeout_seconds, time.monotonic)
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # StopIteration.value is Any; route returns Answer
            if isinstance(step, Attempt):
                result = await self._attempt(step)
            else:
                await asyncio.sleep(step.seconds)
                result = None

    async def _attempt(self, attempt: Attempt) -> Result:
        try:
            # httpx bounds each phase; a server that drips bytes is bounded only by the whole.
            async with asyncio.timeout(attempt.timeout_seconds):
                return answer_of(await self._http.request(**request_arguments(attempt)))
        except (httpx.HTTPError, TimeoutError) as error:
            return failure_of(error)
