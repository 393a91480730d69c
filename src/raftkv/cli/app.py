"""The tree of commands, and the one place where an error becomes a line on standard error and an exit code."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from raftkv import __version__
from raftkv.api import ExitCode, exit_code
from raftkv.cli import bench, dev, inspect, keys, member, serve, sim, stats, version
from raftkv.cli.help import PlainCommand, PlainGroup
from raftkv.errors import OutcomeUnknown, RaftkvError

EPILOG = """Exit codes:
  0  done                          4  unavailable: surely not done, try again
  1  failed for another reason     5  outcome unknown: perhaps done
  2  wrong usage or setting        6  refused, nothing changed
  3  key not found                 7  disk or data damaged, in use or not ours
130  interrupted by Ctrl-C"""

app = typer.Typer(
    name="raftkv",
    cls=PlainGroup,
    help="A strongly consistent, replicated key-value database. Try 'raftkv dev' for a cluster on this machine.",
    epilog=EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"raftkv {__version__}")
        raise typer.Exit


@app.callback()
def options(
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """A strongly consistent, replicated key-value database. Try 'raftkv dev' for a cluster on this machine."""


_SERVERS, _CLIENTS, _TOOLS = "Run nodes", "Use a cluster", "Look closer"
app.command(cls=PlainCommand, rich_help_panel=_SERVERS)(serve.serve)
app.command(cls=PlainCommand, rich_help_panel=_SERVERS)(dev.dev)
app.command(cls=PlainCommand, rich_help_panel=_CLIENTS)(keys.put)
app.command(cls=PlainCommand, rich_help_panel=_CLIENTS)(keys.get)
app.command(cls=PlainCommand, rich_help_panel=_CLIENTS)(keys.delete)
app.command(cls=PlainCommand, rich_help_panel=_CLIENTS)(stats.stats)
app.add_typer(member.app, name="member", rich_help_panel=_CLIENTS)
app.command(cls=PlainCommand, rich_help_panel=_TOOLS)(inspect.inspect)
app.command(cls=PlainCommand, rich_help_panel=_TOOLS)(bench.bench)
app.command(cls=PlainCommand, rich_help_panel=_TOOLS)(sim.sim)
app.command(cls=PlainCommand, rich_help_panel=_TOOLS)(version.version)


def main() -> None:
    """Run the command line of this process and exit."""
    try:
        app()
    except RaftkvError as error:
        sys.stderr.write(f"raftkv: {describe(error)}\n")
        sys.exit(exit_code(error))
    except OSError as error:
        # What the operating system refuses, such as a port that is taken; its text names it.
        text = error.strerror if error.strerror and error.filename is None else error
        sys.stderr.write(f"raftkv: error: {text}\n")
        sys.exit(ExitCode.FAILED)


def describe(error: RaftkvError) -> str:
    """What an error means for the person at the terminal; nothing may look failed that perhaps was done."""
    return f"outcome unknown: {error}" if isinstance(error, OutcomeUnknown) else f"error: {error}"
