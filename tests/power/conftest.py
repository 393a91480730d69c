"""Fixtures of the power tests. Where the power or a sync cannot be made to fail, they say why and skip."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.node import PROGRAM
from tests.power.disk import what_is_missing
from tests.power.faulty_sync import build_faulty_sync


@pytest.fixture(scope="session", autouse=True)
def power() -> None:
    missing = what_is_missing() if PROGRAM.exists() else f"{PROGRAM} is missing: run make install"
    if missing:
        pytest.skip(missing)


@pytest.fixture(scope="session")
def faulty_sync(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of `faulty_sync.c`."""
    library = build_faulty_sync(tmp_path_factory.mktemp("faulty_sync"))
    if library is None:
        pytest.skip("no C compiler (cc) is installed")
    return library
