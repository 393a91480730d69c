"""The HTTP interface: one port, two lanes.

Requests for keys are answered by the connection object itself, without a coroutine (`fastlane`); all other
routes are an ordinary Starlette application (`app`). Parsing, limits, timeouts and the order of answers are the
same for both (`connection`), and so are checks and texts (`service`, `responses`). One contract suite runs
against both lanes. Why, and what it costs: docs/design/http.md.
"""

from __future__ import annotations

from raftkv.api.http.server import HttpServer

__all__ = ["HttpServer"]
