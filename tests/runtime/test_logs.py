"""Log lines: each names its node and term; facts are fields, at the end of a line for people or in JSON."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from raftkv.runtime import configure_logging

NAMES = ("raftkv", "uvicorn")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Logging is global; leave it as it was found."""
    kept = {name: (list(logger.handlers), logger.level, logger.propagate) for name, logger in loggers()}
    yield
    for name, logger in loggers():
        logger.handlers[:], logger.level, logger.propagate = kept[name]


def loggers() -> list[tuple[str, logging.Logger]]:
    return [(name, logging.getLogger(name)) for name in NAMES]


class Lines:
    def __init__(self, log_format: str, level: str = "info") -> None:
        self.stream = io.StringIO()
        self.term = 3
        configure_logging("node1", level, log_format, lambda: self.term, self.stream)

    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    def parsed(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines()]


def test_a_line_for_people_names_time_level_node_term_and_facts() -> None:
    lines = Lines("text")
    logging.getLogger("raftkv.node").info("now %s", "leader", extra={"leader": "node2", "entries": 7})
    (line,) = lines.lines()
    time, rest = line.split(" ", 1)
    assert time.endswith("Z")
    assert len(time) == len("2026-01-01T00:00:00.000Z")
    assert rest == "INFO    node1 term=3 raftkv.node: now leader leader=node2 entries=7"


def test_a_line_for_programs_is_one_json_object_with_the_facts_as_fields() -> None:
    lines = Lines("json")
    logging.getLogger("raftkv.node").warning("disk %s", "nearly full", extra={"free_bytes": 7, "path": io})
    (line,) = lines.parsed()
    assert line.pop("time")
    assert line.pop("path") == str(io)
    assert line == {
        "level": "warning",
        "node": "node1",
        "term": 3,
        "logger": "raftkv.node",
        "message": "disk nearly full",
        "free_bytes": 7,
    }


def test_the_term_is_that_of_the_moment() -> None:
    lines = Lines("json")
    logging.getLogger("raftkv.node").info("one")
    lines.term = 4
    logging.getLogger("raftkv.node").info("two")
    assert [line["term"] for line in lines.parsed()] == [3, 4]


def test_a_message_with_line_breaks_is_still_one_line() -> None:
    """A peer can make a node log a text of its choosing, but not forge lines."""
    lines = Lines("json")
    logging.getLogger("raftkv.node").info("a\n%s", '{"level": "critical"}')
    assert [line["message"] for line in lines.parsed()] == ['a\n{"level": "critical"}']
    lines = Lines("text")
    logging.getLogger("raftkv.node").info("refused: %s", "x\r\n2026 CRITICAL", extra={"peer": "y\nz"})
    (line,) = lines.lines()
    assert line.endswith("refused: x\\r\\n2026 CRITICAL peer=y\\nz")


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_an_error_carries_its_traceback(log_format: str) -> None:
    lines = Lines(log_format)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("raftkv.node").exception("it failed")
    assert "ValueError: boom" in (str(lines.parsed()[0]["traceback"]) if log_format == "json" else lines.lines()[-1])


def test_the_level_is_obeyed() -> None:
    lines = Lines("text", level="warning")
    logging.getLogger("raftkv.node").info("not this")
    logging.getLogger("raftkv.node").warning("this")
    assert [line.rpartition(": ")[2] for line in lines.lines()] == ["this"]


def test_configuring_again_does_not_write_every_line_twice() -> None:
    Lines("text")
    lines = Lines("text")
    logging.getLogger("raftkv.node").info("once")
    assert len(lines.lines()) == 1
