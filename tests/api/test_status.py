"""Each error has its status, code and exit code by decision."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest

import raftkv
from raftkv import errors
from raftkv.api import request_errors, status


def tree(kind: type[errors.RaftkvError] = errors.RaftkvError) -> Iterator[type[errors.RaftkvError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from tree(child)


def import_everything() -> None:
    for module in pkgutil.walk_packages(raftkv.__path__, "raftkv."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def test_every_error_has_a_row_of_its_own() -> None:
    import_everything()
    missing = sorted(name(kind) for kind in tree() if name(kind) not in rows() and not is_internal(kind))
    assert not missing, f"api/status.py has no row for {', '.join(missing)}"


def is_internal(kind: type[errors.RaftkvError]) -> bool:
    """The transport's own kinds of bad input end a peer's connection and never reach a client."""
    return issubclass(kind, errors.PeerProtocolError) and kind.__module__.startswith("raftkv.transport")


def name(kind: type[errors.RaftkvError]) -> str:
    return f"{kind.__module__}.{kind.__name__}"


def rows() -> set[str]:
    return {name(kind) for kind in status.TABLE}


def test_a_new_error_without_a_row_would_be_noticed() -> None:
    assert "raftkv.errors.NoSuchError" not in rows()
    assert {kind.__name__ for kind in tree(errors.Unavailable)} >= {"NotLeader", "DiskFull", "TooManyConnections"}


def test_codes_are_unique_words() -> None:
    codes = [errors.error_code(kind) for kind in status.TABLE]
    assert len(set(codes)) == len(codes)
    assert errors.error_code(errors.NotLeader) == "not_leader"
    assert errors.error_code(errors.OutcomeUnknown) == "outcome_unknown"


def test_only_surely_rejected_requests_are_called_rejected() -> None:
    for kind in status.TABLE:
        error = kind.__new__(kind)
        assert status.outcome(error) == ("rejected" if issubclass(kind, errors.Rejected) else "unknown")
    assert status.outcome(ValueError()) == "unknown"


@pytest.mark.parametrize(
    ("error", "http", "exit_code"),
    [
        (errors.KeyNotFound("a"), 404, status.ExitCode.NOT_FOUND),
        (errors.TooLarge("key", 2, 1), 413, status.ExitCode.USAGE),
        (errors.NotLeader(), 422, status.ExitCode.UNAVAILABLE),
        (errors.OutcomeUnknown(), 504, status.ExitCode.OUTCOME_UNKNOWN),
        (errors.CorruptData("f", 1, "bad"), 500, status.ExitCode.STORAGE),
        (request_errors.HeaderTooLarge("header", 2, 1), 431, status.ExitCode.USAGE),
        (ZeroDivisionError(), 500, status.ExitCode.FAILED),
    ],
)
def test_some_rows(error: Exception, http: int, exit_code: status.ExitCode) -> None:
    assert status.http_status(error) == http
    assert status.exit_code(error) == exit_code
    assert status.grpc_code(error) in status.GrpcCode
