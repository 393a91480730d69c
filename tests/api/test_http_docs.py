"""The reference pages say what the code says."""

from __future__ import annotations

from pathlib import Path

from raftkv.api import request_errors, status
from raftkv.api.http import routes
from raftkv.errors import Rejected

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def test_every_route_is_in_the_reference() -> None:
    page = (REFERENCE / "http.md").read_text()
    for route in routes.ALL:
        assert f" {route}` |" in page, f"docs/reference/http.md does not list {route}"


def test_every_error_is_in_the_reference_with_its_row() -> None:
    rows = [line for line in (REFERENCE / "errors.md").read_text().splitlines() if line.startswith("| `")]
    for kind, row in status.TABLE.items():
        outcome = "rejected" if issubclass(kind, Rejected) else "unknown"
        line = f"| `{status.error_code(kind)}` | {row.http} | {row.grpc.name} | {int(row.exit)} | {outcome} |"
        assert line in rows, f"docs/reference/errors.md needs the row {line}"
    assert len(rows) == len(status.TABLE)


def test_every_exit_code_is_in_the_reference() -> None:
    page = (REFERENCE / "errors.md").read_text()
    for code in status.ExitCode:
        assert f"\n| {int(code)} | " in page


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
