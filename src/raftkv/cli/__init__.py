"""The command line: `raftkv serve`, `dev`, `put`, `get`, `delete`, `stats`, `member`, `inspect`, `bench`, `version`.

One file a command group. Commands parse, call other rooms and print; they decide nothing. Results go to standard
output, everything else to standard error; exit codes are those of `raftkv.api.status.ExitCode`.

May use: api, runtime, storage (inspect only), client, types, errors. Nobody uses this room.
"""

from raftkv.cli.early import main

__all__ = ["main"]
