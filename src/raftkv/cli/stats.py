"""`raftkv stats`: what one node says of itself."""

from __future__ import annotations

import json
from typing import Any

from rich.box import SIMPLE_HEAD
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
    out = console()
    table = Table(show_header=False, box=None, padding=(0, 2))
    lists: list[tuple[str, list[dict[str, Any]]]] = []
    for name, value in found.items():
        if isinstance(value, list):
            lists.append((name, value))
        else:
            table.add_row(name, _cell(value))
    out.print(table)
    for name, rows in lists:
        if rows:
            out.print(_rows(name, rows))


def _rows(name: str, rows: list[dict[str, Any]]) -> Table:
    """A list of the answer, a table of its own: side by side its rows would not fit a terminal."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(*columns, title=name, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(_cell(row.get(column, "")) for column in columns))
    return table


def _cell(value: Any) -> str:
    """As JSON has it: `false`, not `False`."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
