"""`Client`: the same calls and routing as `AsyncClient`, for code without asyncio. May be shared by threads."""

from __future__ import annotations

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


class Client:
    """A client of one cluster; use it with `with`, or call `close`. Arguments and errors are `AsyncClient`'s."""

    def __init__(self, servers: str | Sequence[str], *, timeout_seconds: float = 10.0) -> None:
        self._servers = Servers(servers)
        self._timeout_seconds = timeout_seconds
        self._http = httpx.Client(**client_arguments())

    def put(self, key: str, value: Any) -> Position:
        return replies.position(self._run(calls.put(key, value)))

    def put_json(self, key: str, json_text: str) -> Position:
        return replies.position(self._run(calls.put_json(key, json_text)))

    def get(self, key: str, consistency: Consistency | str | None = None) -> GetResult:
        return replies.stored(self._run(calls.get(key, consistency)))

    def delete(self, key: str) -> Position:
        return replies.position(self._run(calls.delete(key)))

    def stats(self) -> dict[str, Any]:
        return dict(replies.data_of(self._run(calls.stats())))

    def members(self) -> list[MemberInfo]:
        return replies.members_of(self.stats())

    def join(self, node_id: str, raft_address: str) -> JoinResult:
        return replies.joined(self._run(calls.join(node_id, raft_address)))

    def remove(self, node_id: str) -> dict[str, Any]:
        return dict(replies.data_of(self._run(calls.remove(node_id))))

    def transfer(self, node_id: str | None = None) -> str:
        return replies.message_of(self._run(calls.transfer(node_id)))

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: Call) -> Answer:
        steps = route(call, self._servers, self._timeout_seconds, time.monotonic)
        result: Result = None
        while True:
            try:
                step = steps.send(result)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # StopIteration.value is Any; route returns Answer
            if isinstance(step, Attempt):
                result = self._attempt(step)
            else:
                time.sleep(step.seconds)
                result = None

    def _attempt(self, attempt: Attempt) -> Result:
        try:
            return answer_of(self._http.request(**request_arguments(attempt)))
        except httpx.HTTPError as error:
            return failure_of(error)
