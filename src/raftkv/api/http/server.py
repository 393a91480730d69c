"""The HTTP server of a node: listen, sweep, drain.

uvicorn's own `Server` is not used: it takes over signals and the life of the process, which belong to the node.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from email.utils import formatdate

from raftkv.api.http.app import make_app
from raftkv.api.http.connection import Connection
from raftkv.api.http.fastlane import FastLane
from raftkv.api.http.limits import Sweep, run_periodically
from raftkv.api.http.metrics import HttpMetrics
from raftkv.api.http.refusal import Refusals
from raftkv.api.http.shared import Shared
from raftkv.api.port import HttpSettings, NodePort

logger = logging.getLogger("raftkv.http")

BACKLOG = 1024
DATE_INTERVAL_S = 1.0


class HttpServer:
    """`await start()`, then `await stop()`. With `fast_lane` false every request goes through ASGI."""

    def __init__(self, node: NodePort, settings: HttpSettings, *, fast_lane: bool = True) -> None:
        self._node = node
        self._settings = settings
        self._lane = FastLane if fast_lane else Connection
        self.metrics = HttpMetrics(self._connection_count, self._in_flight_count)
        app = make_app(node, settings, self.metrics, lambda: self._shared.heads)
        self._shared = Shared(node, settings, app, self.metrics)
        self._refusals = Refusals(self.metrics)
        self._sweep = Sweep(self._shared.limits, self._connections)
        self._server: asyncio.Server | None = None
        self._periodic: list[asyncio.Task[None]] = []

    async def start(self) -> tuple[str, int]:
        """Listen, and return the address that was bound. Raises OSError when it is taken."""
        loop = asyncio.get_running_loop()
        host, port = self._settings.server_host, self._settings.server_port
        try:
            self._server = await loop.create_server(self._accept, host, port, backlog=BACKLOG)
        except OSError as error:
            reason = error.strerror if isinstance(error, socket.gaierror) else os.strerror(error.errno or 0)
            text = f"cannot listen for HTTP on {host} port {port} (settings server_host, server_port): {reason}"
            raise OSError(error.errno, text) from error
        self._node.metrics_registry.register(self.metrics)
        self._tick()
        interval_s = self._shared.limits.sweep_interval_s
        self._periodic = [
            loop.create_task(run_periodically(interval_s, lambda: self._sweep.look(loop.time()))),
            loop.create_task(run_periodically(DATE_INTERVAL_S, self._tick)),
        ]
        host, port = self._server.sockets[0].getsockname()[:2]
        logger.info("HTTP: listening on %s port %d", host, port)
        return str(host), int(port)

    async def stop(self) -> None:
        """Take no new connection or request, answer what has come in, then close.

        After `shutdown_timeout_ms` the rest is cut off. Call it while the node still answers.
        """
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        self._shared.heads.close()
        self._refusals.close()
        for connection in self._connections():
            connection.shutdown()
        if self._shared.state.connections:
            self._shared.all_closed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.shutdown_timeout_ms / 1000):
                    await self._shared.all_closed.wait()
        for connection in self._connections():
            logger.warning("HTTP: cut off a connection that was still busy after shutdown_timeout_ms")
            connection.transport.abort()
        for task in (*self._periodic, *self._shared.state.tasks):
            task.cancel()
        await asyncio.gather(*self._periodic, *self._shared.state.tasks, return_exceptions=True)
        await server.wait_closed()
        self._node.metrics_registry.unregister(self.metrics)

    def _accept(self) -> asyncio.Protocol:
        if len(self._shared.state.connections) >= self._shared.limits.connections:
            return self._refusals.make()
        return self._lane(self._shared)

    def _connections(self) -> list[Connection]:
        return [c for c in self._shared.state.connections if isinstance(c, Connection)]

    def _connection_count(self) -> int:
        return len(self._shared.state.connections)

    def _in_flight_count(self) -> int:
        return sum(connection.is_busy for connection in self._connections())

    def _tick(self) -> None:
        self._shared.heads.tick()
        self._shared.state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
