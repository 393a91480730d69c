"""Runs the command line inside the test process, as a shell would see it."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from raftkv.cli import main


class Finished(NamedTuple):
    """`exit_code`, and all that was printed."""

    exit_code: int
    out: str
    err: str


class Command:
    """Callable with the words that follow `raftkv`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("NO_COLOR", "1")
        monkeypatch.delenv("RAFTKV_SERVER", raising=False)

    def __call__(self, *words: str) -> Finished:
        self._monkeypatch.setattr("sys.argv", ["raftkv", *words])
        with pytest.raises(SystemExit) as exited:
            main()
        out, err = self._capsys.readouterr()
        code = exited.value.code
        return Finished(code if isinstance(code, int) else 0, out, err)
