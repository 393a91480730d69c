"""Who votes at each node, worked out from what it writes to its log, apart from the core (Raft §6, Thesis §4).

The core is believed in nothing here: which configuration is in force follows from the entries that are in the log, so a
core that takes up one too late, or keeps one that was truncated, differs from this. What a leader may append follows
from the configuration before it and from what is committed; that is asked where it is appended, as a node that was just
absorbed begins with a configuration that is newer than the entries it is sent first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from raftkv.raft import decode_configuration
from raftkv.types import Configuration, Entry, EntryKind, MemberId

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode
    from raftkv.storage import Wal


class _Known:
    """The configurations in one log: (index, configuration), ascending, the base's first."""

    __slots__ = ("items", "wal")

    def __init__(self, wal: Wal) -> None:
        self.wal = wal
        self.items = [(wal.base.configuration_index, wal.base.configuration)]
        self.items += [(entry.index, decode_configuration(entry.data)) for entry in wal.configurations()]


class Memberships:
    """By node name. `violation` is told what does not hold."""

    def __init__(self, violation: Callable[[str], None]) -> None:
        self._known: dict[str, _Known] = {}
        self._violation = violation

    def _of(self, node: SimNode) -> _Known:
        """Read from the disk once for each log that the node opens; then kept by what it writes."""
        wal = node.replica.log.wal
        known = self._known.get(node.node_id)
        if known is None or known.wal is not wal:
            known = self._known[node.node_id] = _Known(wal)
        return known

    def in_force(self, node: SimNode) -> Configuration:
        return self._of(node).items[-1][1]

    def written(self, node: SimNode, entries: list[Entry], commit_index: int, committed_term: int) -> None:
        """`commit_index` and `committed_term` are the cluster's, as anybody knows them."""
        items = self._of(node).items
        while len(items) > 1 and items[-1][0] >= entries[0].index:
            items.pop()
        for entry in entries:
            if entry.kind is not EntryKind.CONFIGURATION:
                continue
            index, before = items[-1]
            after = decode_configuration(entry.data)
            name = f"configuration at {entry.index}"
            if node.replica.raft.is_leader and entry.term == node.replica.raft.current_term:
                if not _may_follow(before, after):
                    self._violation(f"{name} goes from {show(before)} to {show(after)} in one step")
                if commit_index < index:
                    self._violation(f"{name} is appended before the one at {index} is committed")
                if committed_term < entry.term:
                    self._violation(f"{name} is appended before anything of term {entry.term} is committed")
            items.append((entry.index, after))

    def check(self, node: SimNode) -> None:
        """That the core goes by the same configuration; for a core that has nothing left to be written."""
        index = self._of(node).items[-1][0]
        used = node.replica.raft.configuration_index
        if used != index:
            self._violation(f"{node.node_id} goes by the configuration at {used}, its log has one at {index}")


def _may_follow(before: Configuration, after: Configuration) -> bool:
    """Voters change only through a joint configuration, which is entered and left as a whole (Raft §6)."""
    if before.is_joint:
        return not after.is_joint and _ids(after) == _ids(before)
    if after.is_joint:
        return {member.member_id for member in after.voters_outgoing} == _ids(before)
    return _ids(after) == _ids(before)


def _ids(configuration: Configuration) -> set[MemberId]:
    return {member.member_id for member in configuration.voters}


def show(configuration: Configuration) -> str:
    names = ",".join(member.node_id for member in configuration.voters)
    old = ",".join(member.node_id for member in configuration.voters_outgoing)
    learners = "".join(f" +{member.node_id}" for member in configuration.learners)
    return f"{names}{f' from {old}' if old else ''}{learners}"
