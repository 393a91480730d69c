"""`raftkv dev`: a whole cluster on this machine, each node a process of its own, as it would be on several machines."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from raftkv.cli.output import console

if TYPE_CHECKING:
    from raftkv.cli.local_cluster import LocalCluster, NodeView

REFRESH_SECONDS = 1.0


def dev(
    nodes: Annotated[int, typer.Option("--nodes", "-n", metavar="N", min=1, max=9, help="How many nodes.")] = 3,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", metavar="DIR", show_default=False,
            help="Keep the data here, and go on from it the next time. Without it a temporary directory is used and "
            "removed at the end.",
        ),
    ] = None,
    base_port: Annotated[
        int,
        typer.Option(
            "--base-port", metavar="PORT", min=1024, max=65000, help="The first node's HTTP port, or the next free one."
        ),
    ] = 2221,
    base_raft_port: Annotated[
        int,
        typer.Option(
            "--base-raft-port", metavar="PORT", min=1024, max=65000, help="The first node's port for the others."
        ),
    ] = 1111,
) -> None:  # fmt: skip
    """Run a cluster on this machine, joined and ready, until Ctrl-C."""
    from raftkv.cli.local_cluster import LocalCluster

    out = console()
    with _interruption() as interrupted, _directory(data_dir) as directory:
        cluster = LocalCluster.plan(directory, nodes, base_port, base_raft_port)
        try:
            out.print(f"Starting {nodes} nodes; their data and logs are in {directory} ...", highlight=False)
            cluster.start(interrupted)
            if not interrupted.is_set():
                _print_banner(cluster, out, is_kept=data_dir is not None)
                _watch(cluster, out, interrupted)
        finally:
            out.print("Stopping ...")
            cluster.stop()
    out.print("Stopped. " + (f"The data is in {data_dir}." if data_dir else "The data was temporary and is removed."))


@contextmanager
def _interruption() -> Iterator[threading.Event]:
    """An event that Ctrl-C or SIGTERM sets, so that stopping happens in one place; a second signal is an interrupt."""
    interrupted = threading.Event()

    def caught(_number: int, _frame: object) -> None:
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    previous = {number: signal.signal(number, caught) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupted
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _directory(given: Path | None) -> Iterator[Path]:
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="raftkv-dev-", ignore_cleanup_errors=True) as temporary:
        yield Path(temporary)


def _print_banner(cluster: LocalCluster, out: Console, is_kept: bool) -> None:
    """Plain lines without a frame, so that commands can be copied whole from any terminal."""
    first, last, program = cluster.nodes[0], cluster.nodes[-1], _program()
    servers = ",".join(node.server_address for node in cluster.nodes)
    put = '-X POST -H \'Content-Type: application/json\' -d \'{"key":"foo","value":"bar"}\''
    tries = [
        ("Store a value, then read it from another node", f"curl {put} http://{first.server_address}/store"),
        ("", f"curl http://{last.server_address}/store/foo"),
        ("Read what is surely the newest", f"curl 'http://{last.server_address}/store/foo?consistency=linearizable'"),
        ("See where a node stands", f"curl http://{first.server_address}/raft/stats"),
        ("The same with the command line", f"export RAFTKV_SERVER={servers}"),
        ("", f"{program} put greeting hello; {program} get greeting; {program} member list"),
        ("Measure", f"{program} bench --seconds 5"),
        ("Crash a node, go on writing, and start it again", f"kill -9 {last.pid}"),
        ("", f"{program} {cluster.serve_line(last)}"),
    ]
    out.rule(f"[bold green]raftkv is running: {len(cluster.nodes)} nodes, one cluster")
    for remark, command in tries:
        if remark:
            out.print(f"{remark}:", style="dim", highlight=False)
        out.print(f"  {command}", style="cyan", markup=False, highlight=False, soft_wrap=True)
    kept = "kept" if is_kept else "removed at the end; --data-dir DIR keeps it"
    out.print(f"Data and logs: {cluster.directory} ({kept}). Ctrl-C stops everything.", style="dim", highlight=False)
    out.rule(style="green")


def _program() -> str:
    """How this program is called from the user's shell."""
    beside = Path(sys.executable).with_name("raftkv")
    if shutil.which("raftkv") or not beside.exists():
        return "raftkv"
    return os.path.relpath(beside) if beside.is_relative_to(Path.cwd()) else str(beside)


def _watch(cluster: LocalCluster, out: Console, interrupted: threading.Event) -> None:
    """Show where the nodes stand until interrupted: a live table on a terminal, elsewhere a line for each change."""
    if out.is_terminal:
        with Live(_table(cluster.view()), console=out, auto_refresh=False, transient=True) as live:
            while not interrupted.wait(REFRESH_SECONDS):
                live.update(_table(cluster.view()), refresh=True)
        return
    shown: dict[str, str] = {}
    while True:
        for node in cluster.view():
            if shown.get(node.node_id) != node.state:
                shown[node.node_id] = node.state
                out.print(f"{node.node_id}: {node.state}", highlight=False)
        if interrupted.wait(REFRESH_SECONDS):
            return


def _table(views: list[NodeView]) -> Table:
    table = Table("node", "HTTP", "Raft", "state", "process", "term", "commit", "applied", border_style="dim")
    for view in views:
        style = {"leader": "bold green", "follower": ""}.get(view.state, "yellow")
        process, term, commit, applied = map(_number, (view.pid, view.term, view.commit, view.applied))
        state = Text(view.state, style=style)
        table.add_row(view.node_id, view.server_address, view.raft_address, state, process, term, commit, applied)
    return table


def _number(number: int | None) -> str:
    return "" if number is None else str(number)
