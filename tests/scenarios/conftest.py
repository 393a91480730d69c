"""`pytest tests/scenarios --record` writes the traces that the core gives now into the scenarios; review the diff."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help="re-record the scenarios instead of checking them")
