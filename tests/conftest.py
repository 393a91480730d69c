"""What holds for every test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ports import release_ports


@pytest.fixture(scope="module", autouse=True)
def reserved_ports() -> Iterator[None]:
    """The ports that the tests of one file reserved are theirs until its last test has ended."""
    yield
    release_ports()
