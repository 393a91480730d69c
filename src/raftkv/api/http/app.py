"""The slow lane: every route as an ordinary Starlette application.

Key routes are here too, in the same words as the fast lane, so that one contract suite can run against both, and for
the requests that the fast lane leaves out (HEAD). A handler returns an `Answer` or raises; `_endpoint` turns
every error into its answer, so that none ends a connection.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raftkv.api.http import pprof, routes
from raftkv.api.http.metrics import HttpMetrics
from raftkv.api.http.responses import JSON_TYPE, Answer, Heads, error_answer, operation_answer, to_json
from raftkv.api.port import HttpSettings, NodePort
from raftkv.api.request_errors import (
    MalformedRequest,
    MethodNotAllowed,
    ProfilingOff,
    RouteNotFound,
    UnprocessableRequest,
)
from raftkv.api.service import KeyService, check_content_type
from raftkv.errors import NotLeader, RaftkvError

logger = logging.getLogger("raftkv.http")

Handler = Callable[[Request], Awaitable[Answer]]
_T = TypeVar("_T")


class _KeyConvertor(Convertor[str]):
    """Anything, line ends too. The handler reads the key from `raw_path`, where %2F and / can be told apart."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("raftkv_key", _KeyConvertor())


class JoinRequest(msgspec.Struct):
    node_id: str
    raft_address: str


class RemoveRequest(msgspec.Struct):
    node_id: str
    raft_address: str = ""
    """May be sent, as the reference allows; not looked at."""


class TransferRequest(msgspec.Struct):
    node_id: str | None = None


def make_app(node: NodePort, settings: HttpSettings, metrics: HttpMetrics, heads: Callable[[], Heads]) -> ASGIApp:
    """The application; `heads` is asked at each answer for the position lines."""
    handlers = _Handlers(node, settings)

    def route(path: str, handler: Handler, *methods: str, pattern: str = "") -> list[Route]:
        endpoint = _endpoint(handler, heads, path)
        paths = [pattern or path] if pattern else [path, path + "/"]
        return [Route(p, endpoint, methods=list(methods), name=path) for p in paths]

    app = Starlette(
        routes=[
            *route(routes.STORE, handlers.key, "POST"),
            *route(routes.STORE_KEY, handlers.key, "GET", "DELETE", pattern="/store/{key:raftkv_key}"),
            *route(routes.JOIN, handlers.join, "POST"),
            *route(routes.REMOVE, handlers.remove, "POST"),
            *route(routes.TRANSFER, handlers.transfer, "POST"),
            *route(routes.STATS, handlers.stats, "GET"),
            *route(routes.HEALTH, handlers.health, "GET"),
            *route(routes.READY, handlers.ready, "GET"),
            *route(routes.METRICS, handlers.metrics, "GET"),
            *route(routes.PPROF, handlers.profile, "GET"),
            *route(routes.PPROF_PROFILE, handlers.profile, "GET"),
        ],
        exception_handlers={HTTPException: _starlette_error(heads)},
    )
    app.router.redirect_slashes = False
    return _Measured(app, metrics)


class _Handlers:
    """One method a route."""

    def __init__(self, node: NodePort, settings: HttpSettings) -> None:
        self._node = node
        self._service = KeyService(node, settings)
        self._is_profiling = settings.is_profiling
        self._profiles = pprof.Profiles()

    async def key(self, request: Request) -> Answer:
        operation = self._service.parse(
            request.method,
            request.scope["raw_path"],
            request.scope["query_string"],
            content_type=_content_type(request),
            mode_header=request.headers.get("x-raftkv-write-mode", "").encode("latin-1"),
            body=await request.body(),
        )
        try:
            return operation_answer(operation, await self._service.perform(operation))
        except NotLeader as error:
            return error_answer(error, operation, _url(request))

    async def join(self, request: Request) -> Answer:
        asked = await _body(request, JoinRequest)
        _check_node_id(asked.node_id)
        if ":" not in asked.raft_address:
            raise UnprocessableRequest(f"raft_address has to be host:port, it is {asked.raft_address!r}")
        outcome = await self._node.join(asked.node_id, asked.raft_address)
        who = f"node {asked.node_id} at {asked.raft_address}"
        if outcome.is_complete:
            return self._with_stats(200, f"{who} joined successfully")
        return self._with_stats(202, f"{who} is joining; ask /raft/stats how far it is", progress=outcome.progress)

    async def remove(self, request: Request) -> Answer:
        asked = await _body(request, RemoveRequest)
        _check_node_id(asked.node_id)
        await self._node.remove(asked.node_id)
        return self._with_stats(200, f"node {asked.node_id} removed successfully")

    async def transfer(self, request: Request) -> Answer:
        asked = await _body(request, TransferRequest) if await request.body() else TransferRequest()
        if asked.node_id is not None:
            _check_node_id(asked.node_id)
        await self._node.transfer_leadership(asked.node_id)
        return self._with_stats(200, f"leadership transferred to {asked.node_id or 'another node'}")

    async def stats(self, _request: Request) -> Answer:
        return self._with_stats(200, "Here is the raft status")

    async def health(self, _request: Request) -> Answer:
        """The process answers; whether it can serve is `/ready`."""
        return _json(200, {"status": "ok"})

    async def ready(self, _request: Request) -> Answer:
        position = self._node.position()
        body: dict[str, Any] = {"ready": self._node.is_ready, "leader": position.leader_node_id}
        if body["ready"]:
            return _json(200, body)
        body["reason"] = "catching up with the leader" if position.leader_node_id else self._why_no_leader()
        return _json(503, body)

    def _why_no_leader(self) -> str:
        stats = self._node.stats()
        if all(member["id"] != stats["node_id"] for member in stats["latest_configuration"]):
            return "this node is no member of a cluster: it was removed, or is not joined yet"
        return "no leader is known"

    async def metrics(self, request: Request) -> Answer:
        # Imported late: a start should not wait for what only a scrape needs.
        from prometheus_client import exposition

        render, content_type = exposition.choose_encoder(request.headers.get("accept", ""))
        return Answer(200, [(b"content-type", content_type.encode("ascii"))], render(self._node.metrics_registry))

    async def profile(self, request: Request) -> Answer:
        if not self._is_profiling:
            raise ProfilingOff("profiling is off here (setting profiling)")
        return await self._profiles.answer(request.path_params.get("profile", ""), request.query_params)

    def _with_stats(self, status: int, message: str, **more: object) -> Answer:
        return _json(status, {"message": message, "data": self._node.stats(), **more})


def _endpoint(handler: Handler, heads: Callable[[], Heads], path: str) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        request.scope["raftkv.route"] = path
        try:
            answer = await handler(request)
        except RaftkvError as error:
            answer = error_answer(error)
        except Exception as error:
            logger.exception("HTTP: cannot handle %s %s", request.method, path)
            answer = error_answer(error)
        return _response(answer, heads())

    return endpoint


def _response(answer: Answer, heads: Heads) -> Response:
    response = Response(answer.body, answer.status)
    length = (b"content-length", b"%d" % len(answer.body))
    response.raw_headers[:] = [*answer.headers, *heads.position_headers(answer), length]
    return response


def _starlette_error(heads: Callable[[], Heads]) -> Callable[[Request, Exception], Response]:
    """Starlette's own 404 and 405, in our form."""

    def answer(request: Request, error: Exception) -> Response:
        ours: RaftkvError = RouteNotFound(f"no route {request.method} {request.url.path}")
        if isinstance(error, HTTPException) and error.status_code == 405:
            allow = (error.headers or {}).get("Allow", "")
            ours = MethodNotAllowed(request.method, ", ".join(sorted(allow.split(", "))))
        return _response(error_answer(ours), heads())

    return answer


class _Measured:
    """Counts requests and their time, by route."""

    def __init__(self, app: ASGIApp, metrics: HttpMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        status = 500

        async def counted(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            route = scope.get("raftkv.route", routes.OTHER)
            self._metrics.observe(scope["method"], route, status, time.perf_counter() - started_s)


async def _body(request: Request, kind: type[_T]) -> _T:
    check_content_type(_content_type(request))
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise UnprocessableRequest(f"the body is JSON, but not what this route reads: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedRequest(f"the body is not JSON: {error}") from None


def _check_node_id(node_id: str) -> None:
    if not node_id.strip():
        raise UnprocessableRequest("node_id is empty")


def _content_type(request: Request) -> bytes:
    return request.headers.get("content-type", "").encode("latin-1")


def _url(request: Request) -> bytes:
    query: bytes = request.scope["query_string"]
    path: bytes = request.scope["raw_path"]
    return path + b"?" + query if query else path


def _json(status: int, body: object) -> Answer:
    return Answer(status, [JSON_TYPE], to_json(body))
