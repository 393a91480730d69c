"""Log lines that name the node and its term, for people or for programs.

Facts travel as `extra={...}` fields, never inside the text, so that a JSON line can be searched by field
and a text line shows them as `name=value` at its end.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {
    "message",
    "asctime",
    "node_id",
    "current_term",
    "taskName",
}


_LINE_BREAKS = str.maketrans({"\n": "\\n", "\r": "\\r"})
"""Texts of peers are logged too; none may look like a line of its own."""


class NodeFilter(logging.Filter):
    """Adds `node_id` and the term at the time of the message."""

    def __init__(self, node_id: str, current_term: Callable[[], int]) -> None:
        super().__init__()
        self._node_id = node_id
        self._current_term = current_term

    def filter(self, record: logging.LogRecord) -> bool:
        record.node_id = self._node_id
        record.current_term = self._current_term()
        return True


def _facts(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"


class TextFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts = "".join(f" {name}={value}" for name, value in _facts(record).items())
        line = (
            f"{_timestamp(record)} {record.levelname:<7} {getattr(record, 'node_id', '-')} "
            f"term={getattr(record, 'current_term', 0)} {record.name}: {record.getMessage()}{facts}"
        ).translate(_LINE_BREAKS)
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "node": getattr(record, "node_id", ""),
            "term": getattr(record, "current_term", 0),
            "logger": record.name,
            "message": record.getMessage(),
            **_facts(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure_logging(
    node_id: str, level: str, log_format: str, current_term: Callable[[], int], stream: TextIO | None = None
) -> logging.Handler:
    """Send the project's log lines to `stream` (standard error by default); returns the handler to remove later."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(NodeFilter(node_id, current_term))
    for name in ("raftkv", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(level.upper())
        logger.propagate = False
    return handler
