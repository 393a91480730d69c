"""The page on HTTP says what the code says; the pages on errors and metrics are made from the code."""

from __future__ import annotations

from pathlib import Path

from raftkv.api import request_errors, status
from raftkv.api.http import routes

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_route_is_in_the_reference() -> None:
    page = (REFERENCE / "http.md").read_text()
    for route in routes.ALL:
        assert f" {route}` |" in page, f"docs/reference/http.md does not list {route}"


def test_statuses_of_the_limits_are_in_the_reference() -> None:
    page = (REFERENCE / "http.md").read_text()
    limits = page[page.index("## Limits") : page.index("## Profiles")]
    for kind in (
        request_errors.UrlTooLong,
        request_errors.HeaderTooLarge,
        request_errors.RequestTimeout,
        request_errors.TooManyConnections,
    ):
        assert str(status.TABLE[kind].http) in limits
