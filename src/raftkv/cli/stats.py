"""`raftkv stats`: what one node says of itself, or a table of all members."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from raftkv.cli.connection import DEFAULT_SERVER, ServerOption, TimeoutOption, connect
from raftkv.cli.output import JsonOption, console, print_json


def stats(server: ServerOption = DEFAULT_SERVER, timeout: TimeoutOption = 10.0, as_json: JsonOption = False) -> None:
    """Show where a node stands: its role, term, log, snapshots and the members it knows."""
    with connect(server, timeout) as client:
        found = client.stats()
    if as_json:
        print_json(found)
        return
    table = Table(show_header=False, box=None, padding=(0, 2))
    for name, value in found.items():
        table.add_row(name, _cell(value))
    console().print(table)


def _cell(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(_cell(item) for item in value)
    if isinstance(value, dict):
        return "  ".join(f"{name}={item}" for name, item in value.items())
    return str(value)
