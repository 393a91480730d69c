"""The contract between the replicated log and what it drives (Raft §2, Thesis §2.1).

Every member hands the same entries in the same order to its own copy, so every copy must come to the
same state: `apply` may depend on the state and the entry and on nothing else. No clock, no randomness,
no setting of this node, no iteration over a set. Whatever a command needs of these is put into it
by the leader before it is proposed.

Turned down: one `apply` call a command. A call for many entries lets the machine write once for all of
them, and that is where the speed comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from raftkv.types import Entry


class StateMachine(Protocol):
    """One copy of the replicated state. All calls but `flush` come from one thread.

    The node stops on any exception that a method raises: a copy that could not apply a committed entry must
    not go on, for it would answer differently from the others.
    """

    @property
    def last_applied(self) -> int:
        """Index of the newest applied entry, 0 for none. After a crash: that of the newest entry that survived."""
        ...

    def apply(self, entries: Sequence[Entry], *, wants_results: bool = True) -> list[Sequence[object]]:
        """Apply committed entries: contiguous, ascending, beginning at `last_applied` + 1; may be empty.

        Without `wants_results` the sequences may be empty: on a follower nobody waits for them.
        Returns one sequence an entry, with one result a command in it; no-op and configuration entries
        have no commands, but they move `last_applied` like the rest. The changes and the new
        `last_applied` are kept atomically and are visible to reads on return. They need not be durable: the
        log is not cut beyond what `flush` covered, so after a crash the runtime applies the rest again.
        """
        ...

    def flush(self) -> None:
        """Blocks until all that was applied before the call is durable. Called in a thread, beside other calls."""
        ...

    def snapshot(self, directory: Path) -> None:
        """Write the state as of `last_applied` into `directory`, which must not exist; its parent does.

        Called from the thread that applies, so that the position is exact, and must therefore be quick when nothing
        was applied since the last `flush`: the runtime flushes in a thread, holds entries back, flushes
        the few that came meanwhile, and then calls this. Files are flat in `directory` and need not be synced.
        """
        ...

    def close(self) -> None:
        """Release everything; does not promise durability (`flush` does)."""
        ...
