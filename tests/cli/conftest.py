from __future__ import annotations

import pytest

from tests.cli.command import Command


@pytest.fixture
def raftkv(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)
