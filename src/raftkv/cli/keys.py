"""`raftkv put`, `get` and `delete`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

from raftkv.cli.connection import DEFAULT_SERVER, ServerOption, TimeoutOption, connect
from raftkv.cli.output import JsonOption, notes, print_json, print_line
from raftkv.errors import InvalidInput
from raftkv.types import Consistency

KeyArgument = Annotated[
    str, typer.Argument(metavar="KEY", help="Any text; slashes and spaces too.", show_default=False)
]


def put(
    key: KeyArgument,
    value: Annotated[
        str,
        typer.Argument(metavar="VALUE", help="The text to store; - reads it from standard input.", show_default=False),
    ],
    value_is_json: Annotated[
        bool, typer.Option("--json-value", "-j", help="VALUE is JSON, stored exactly as given, not a text.")
    ] = False,
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Store a value. When this exits with 0, a majority of the nodes has it on disk."""
    text = _standard_input() if value == "-" else value
    with connect(server, timeout) as client:
        position = client.put_json(key, text) if value_is_json else client.put(key, text)
    _report(key, "stored", position.revision, as_json)


def get(
    key: KeyArgument,
    consistency: Annotated[
        Consistency | None,
        typer.Option(
            "--consistency",
            "-c",
            help="What the read promises; without it the server's own setting.",
            show_default=False,
        ),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = 10.0,
    as_json: JsonOption = False,
) -> None:
    """Print the value of a key: a text as it is, anything else as its JSON. Exits 3 when there is none."""
    with connect(server, timeout) as client:
        result = client.get(key, consistency)
    if result.position.is_stale:
        notes().print("This value may be old: the node that answered has not found a leader since its start.")
    if as_json:
        # The value goes out as its own JSON text, so that no digit of a number is lost.
        rest = json.dumps({"key": result.key, "revision": result.position.revision}, ensure_ascii=False)
        print_line(f'{rest[:-1]}, "value": {result.json_text}}}')
    elif result.json_text.startswith('"'):
        print_line(str(result.value))
    else:
        print_line(result.json_text)


def delete(
    key: KeyArgument, server: ServerOption = DEFAULT_SERVER, timeout: TimeoutOption = 10.0, as_json: JsonOption = False
) -> None:
    """Remove a key, whether it is there or not."""
    with connect(server, timeout) as client:
        position = client.delete(key)
    _report(key, "removed", position.revision, as_json)


def _report(key: str, what: str, revision: int, as_json: bool) -> None:
    if as_json:
        result: dict[str, Any] = {"key": key, "revision": revision}
        print_json(result)
    else:
        notes().print(f"{what} (revision {revision})", highlight=False)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise InvalidInput("standard input is not UTF-8 text") from None
