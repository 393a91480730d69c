"""What the checks remember: what a process showed last, what an identity promised, what was true of a cluster."""

from __future__ import annotations

import dataclasses

from raftkv.kv import Put, decode_batch
from raftkv.types import NOBODY, Entry, EntryKind, MemberId, Role


@dataclasses.dataclass
class Seen:
    """What one process showed last."""

    term: int = 0
    commit_index: int = 0
    last_applied: int = 0
    role: Role = Role.FOLLOWER
    leader: MemberId = NOBODY


@dataclasses.dataclass
class OnDisk:
    """What one identity has ever promised: it must survive every process."""

    term: int = 0
    vote_of: dict[int, MemberId] = dataclasses.field(default_factory=dict)
    last_index: int = 0
    """Of its log when its process ended; what is running is asked itself."""
    last_term: int = 0
    is_whole: bool = True
    """False once the directory was damaged on purpose."""


class Facts:
    """What was ever true of one cluster."""

    def __init__(self) -> None:
        self.leader_of_term: dict[int, MemberId] = {}
        self.entry_at: dict[tuple[int, int], tuple[int, Entry]] = {}
        """(index, term) -> (term of the entry before, entry), wherever it was written first."""
        self.committed: dict[int, Entry] = {}
        self.commit_index = 0
        self.values: set[bytes] = set()
        """All that were ever put by a committed command."""
        self._puts: set[tuple[bytes, bytes]] = set()
        """The same with their keys; no client sends one twice."""
        self.campaigns: set[int] = set()
        """Terms that somebody was a candidate in."""

    def term_of_commit(self) -> int:
        entry = self.committed.get(self.commit_index)
        return entry.term if entry is not None else 0

    def note(self, entry: Entry) -> list[Put]:
        """Returns the puts that were committed before."""
        self.committed[entry.index] = entry
        if entry.kind is not EntryKind.COMMANDS:
            return []
        puts = [command for command in decode_batch(entry.data) if isinstance(command, Put)]
        again = [put for put in puts if (put.key, put.value) in self._puts]
        self._puts.update((put.key, put.value) for put in puts)
        self.values.update(put.value for put in puts)
        return again
