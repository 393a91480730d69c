"""`raftkv member list`, `join`, `remove` and `transfer`."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from raftkv.cli.connection import DEFAULT_SERVER, ServerOption, TimeoutOption, connect
from raftkv.cli.help import PlainCommand, PlainGroup
from raftkv.cli.output import JsonOption, console, notes, print_json

app = typer.Typer(cls=PlainGroup, help="See and change who belongs to the cluster.", no_args_is_help=True)

NodeArgument = Annotated[str, typer.Argument(metavar="NODE_ID", help="The name of the node.", show_default=False)]


@app.command("list", cls=PlainCommand)
def list_members(
    server: ServerOption = DEFAULT_SERVER, timeout: TimeoutOption = 10.0, as_json: JsonOption = False
) -> None:
    """List the members, as the node that answers knows them."""
    with connect(server, timeout) as client:
        members = client.members()
    if as_json:
        fields = ("node_id", "raft_address", "http_address", "suffrage", "is_leader")
        print_json([{name: getattr(member, name) for name in fields} for member in members])
        return
    table = Table("node", "Raft address", "HTTP address", "suffrage", "role")
    for member in members:
        role = "leader" if member.is_leader else ""
        table.add_row(member.node_id, member.raft_address, member.http_address, member.suffrage, role)
    console().print(table)


@app.command(cls=PlainCommand)
def join(
    node_id: NodeArgument,
    raft_address: Annotated[
        str, typer.Argument(metavar="HOST:RAFT_PORT", help="Where the members reach that node.", show_default=False)
    ],
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Make a running node a member of the cluster of --server.

    Returns once the node votes. When that takes longer than the server waits, this says so and exits 0: the join goes
    on by itself. Joining a member again changes nothing.
    """
    with connect(server, timeout) as client:
        result = client.join(node_id, raft_address)
    if as_json:
        print_json({"is_complete": result.is_complete, "message": result.message, "data": result.data})
    else:
        notes().print(result.message, markup=False, highlight=False)


@app.command(cls=PlainCommand)
def remove(
    node_id: NodeArgument,
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Remove a node from the cluster. It keeps its data and can join again.

    Removing a node that is no member changes nothing, and exits 0.
    """
    with connect(server, timeout) as client:
        found = client.remove(node_id)
    if as_json:
        print_json(found)
    else:
        members = ", ".join(member["id"] for member in found.get("latest_configuration", []))
        # The members are named because a name that was mistyped is no member either.
        notes().print(f"{node_id} is not a member (any more); members: {members}", markup=False, highlight=False)


@app.command(cls=PlainCommand)
def transfer(
    node_id: Annotated[
        str | None,
        typer.Argument(metavar="NODE_ID", help="Who shall lead; any voter without it.", show_default=False),
    ] = None,
    server: ServerOption = DEFAULT_SERVER,
    timeout: TimeoutOption = 30.0,
    as_json: JsonOption = False,
) -> None:
    """Hand leadership over, before maintenance for instance. Returns once another node leads."""
    with connect(server, timeout) as client:
        message = client.transfer(node_id)
    if as_json:
        print_json({"message": message})
    else:
        notes().print(message, markup=False, highlight=False)
