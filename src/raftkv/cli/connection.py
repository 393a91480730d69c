"""The options that every command of a client has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from raftkv.client import Client

DEFAULT_SERVER = "127.0.0.1:2221"

ServerOption = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        envvar="RAFTKV_SERVER",
        metavar="HOST:PORT,…",
        help="Members to talk to, separated by commas; the next one is tried when one cannot be reached.",
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.01, help="How long the whole command may wait.")
]


def connect(servers: str, timeout_seconds: float) -> Client:
    # Imported here because httpx takes longer to load than the rest of the program, and `serve` never needs it.
    from raftkv.client import Client

    return Client(servers, timeout_seconds=timeout_seconds)
