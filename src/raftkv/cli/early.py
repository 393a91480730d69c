"""Where the process begins: signals are minded before the modules, which take some tenths of a second to load.

Only a few small modules of the standard library are imported here. Turned down: raising `SystemExit` from the handler;
it would come up in the middle of any import, and some of them swallow it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator


def main() -> None:
    """Run the command line of this process and exit."""
    with _ready_to_stop() if sys.argv[1:2] == ["serve"] else contextlib.nullcontext():
        from raftkv.cli.app import main as run

        run()


@contextlib.contextmanager
def _ready_to_stop() -> Iterator[None]:
    """SIGTERM and SIGINT end a node that has not begun, with 0. `serve` takes them over before it opens anything."""
    before = {number: signal.signal(number, _end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(_number: int, _frame: object) -> None:
    os._exit(0)
