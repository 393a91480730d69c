"""`raftkv serve`: one node, until a signal or a fault ends it.

The flags are made from the table of settings, so `--help` cannot be out of date. They are all texts here: the loader
parses flags, environment and file alike, and names the source of a wrong value.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import inspect
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import typer

from raftkv.errors import StorageError
from raftkv.runtime import CONFIG_ENVIRONMENT, SETTINGS, Settings, SettingSpec, Unit, configure_logging, load_settings

LEAST_DESCRIPTORS_COUNT = 64
"""An idle node of one holds 25; files of the state, peers and snapshots come on top."""


def serve(config: Path | None = None, **flags: str | None) -> None:
    """Run one node in the foreground.

    Every setting can be given as a flag, as an environment variable or in a TOML file; flags win over the
    environment, the environment over the file. SIGTERM or Ctrl-C finishes open requests, hands leadership over and
    exits with 0, while it starts as well.
    """
    settings = load_settings(flags, os.environ, config)
    _check_descriptors()
    # Imported after the settings are known to be right: storage and consensus take a while to load.
    import uvloop

    uvloop.run(run_node(settings))


def _check_descriptors() -> None:
    """Raise OSError when there are too few for a node: they would run out in the middle of opening it."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < LEAST_DESCRIPTORS_COUNT:
        raise OSError(
            errno.EMFILE,
            f"the limit of open files is {limit}, a node needs at least {LEAST_DESCRIPTORS_COUNT} and one more for "
            "each HTTP connection: raise it (ulimit -n, LimitNOFILE)",
        )


async def run_node(settings: Settings) -> None:
    """Run a node with its HTTP interface until a signal asks it to stop. Raises what stops it otherwise."""
    from raftkv.api.http import HttpServer
    from raftkv.runtime import Node

    node: Node | None = None
    configure_logging(
        settings.node_id,
        settings.log_level,
        settings.log_format,
        lambda: node.position().current_term if node is not None else 0,
    )
    async with _stop_signal() as stop:
        node = await _unless_stopped(Node.start(settings), stop)
        if node is None:
            return
        try:
            server = HttpServer(node, settings)
            await server.start()
            _settle_interpreter()
            try:
                await _first_of(stop.wait(), node.wait_stopped())
            finally:
                await server.stop()
        except BaseException:
            with contextlib.suppress(StorageError):  # what went wrong first is told, not what followed from it
                await node.stop()
            raise
        await node.stop()


def _settle_interpreter() -> None:
    """What lives as long as the process need not be searched for garbage again and again, and the few threads beside
    the loop (flush, snapshot files) should not make it wait 5 ms for its turn.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    sys.setswitchinterval(0.001)


@contextlib.asynccontextmanager
async def _stop_signal() -> AsyncIterator[asyncio.Event]:
    """An event that SIGTERM or SIGINT sets. A second signal is not caught, and so ends the process at once."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)

    def caught() -> None:
        for number in numbers:
            loop.remove_signal_handler(number)
        stop.set()

    for number in numbers:
        loop.add_signal_handler(number, caught)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def _unless_stopped(starting: Any, stop: asyncio.Event) -> Any:
    """What `starting` returns, or None when the signal comes first; `starting` is then cancelled."""
    start, stopped = asyncio.ensure_future(starting), asyncio.ensure_future(stop.wait())
    await asyncio.wait((start, stopped), return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if start.done():
        return start.result()
    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start
    return None


async def _first_of(*waits: Any) -> None:
    """Wait for the first to end, and raise what it raised."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    for task in done:
        task.result()


def _option(spec: SettingSpec) -> inspect.Parameter:
    allowed = f" Allowed: {spec.allowed_text}." if spec.allowed_text and spec.choices is None else ""
    ending = "Required." if spec.is_required else f"Default: {spec.default_text or 'none'}."
    metavar = "|".join(spec.choices) if spec.choices is not None else spec.unit.value.upper().replace(" ", "")
    option = typer.Option(
        spec.flag,
        metavar=metavar if spec.unit is not Unit.MEMBERS else "NAME=HOST:PORT,…",
        help=f"{spec.help}{allowed} {ending} Environment: {spec.environment}",
        rich_help_panel=spec.group,
        show_default=False,
    )
    return inspect.Parameter(
        spec.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[str | None, option]
    )


def _signature() -> inspect.Signature:
    """What Typer reads the options from: --config and one flag for each row of the table."""
    option = typer.Option(
        "--config",
        metavar="FILE",
        help=f"A TOML file of settings. Environment: {CONFIG_ENVIRONMENT}",
        show_default=False,
    )
    config = inspect.Parameter(
        "config", inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[Path | None, option]
    )
    return inspect.Signature([config, *(_option(spec) for spec in SETTINGS.values())])


serve.__signature__ = _signature()  # type: ignore[attr-defined]  # functions have it at run time; typeshed leaves it out
serve.__annotations__ = {name: parameter.annotation for name, parameter in _signature().parameters.items()}
