"""What all connections of one server share."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from raftkv.api.http.limits import Limits
from raftkv.api.http.metrics import HttpMetrics
from raftkv.api.http.responses import Heads
from raftkv.api.port import HttpSettings, NodePort
from raftkv.api.service import KeyService


class Shared:
    """Made by `HttpServer`; lives as long as it."""

    def __init__(self, node: NodePort, settings: HttpSettings, app: ASGIApp, metrics: HttpMetrics) -> None:
        self.node = node
        self.service = KeyService(node, settings)
        self.limits = Limits.of(settings)
        self.heads = Heads(node)
        self.metrics = metrics
        self.state = ServerState()
        self.config = Config(
            app,
            http=HttpToolsProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self.config.load()
        self.all_closed = asyncio.Event()
        self.all_closed.set()

    def connection_lost(self) -> None:
        if not self.state.connections:
            self.all_closed.set()
