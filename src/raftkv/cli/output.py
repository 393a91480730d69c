"""How commands print: tables and text for people, one JSON value for programs (`--json`)."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON value, for programs.")]


def console() -> Console:
    """Made when used, so that it sees the terminal of that moment."""
    return Console()


def notes() -> Console:
    """For progress and remarks: standard error, so that output can be piped."""
    return Console(stderr=True)


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")


def print_line(text: str) -> None:
    """Plain text, exactly, whatever markup or width it looks like."""
    sys.stdout.write(text + "\n")
