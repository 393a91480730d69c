"""The specification of the key-value state: a dict and a copy of it for every revision. Slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence

from raftkv.kv import (
    Command,
    Compact,
    CompactResult,
    Delete,
    DeleteResult,
    KeyValue,
    Put,
    PutResult,
    Result,
    encode_batch,
)
from raftkv.types import Entry, EntryKind


def commands_entry(index: int, commands: Sequence[Command], term: int = 1) -> Entry:
    return Entry(index, term, EntryKind.COMMANDS, encode_batch(commands))


class Model:
    def __init__(self) -> None:
        self.states: dict[int, dict[bytes, KeyValue]] = {1: {}}
        """The live keys at every revision."""
        self.revision = 1
        self.compact_revision = 0

    def run(self, commands: Sequence[Command]) -> list[Result]:
        return [self._run(command) for command in commands]

    def _run(self, command: Command) -> Result:
        now = self.states[self.revision]
        match command:
            case Put():
                old = now.get(command.key)
                revision = self.revision + 1
                new = KeyValue(
                    command.key,
                    command.value,
                    old.create_revision if old else revision,
                    revision,
                    old.version + 1 if old else 1,
                    command.lease,
                )
                self._advance({**now, command.key: new})
                return PutResult(revision, new.create_revision, new.version)
            case Delete():
                if command.key not in now:
                    return DeleteResult(self.revision, False)
                self._advance({key: value for key, value in now.items() if key != command.key})
                return DeleteResult(self.revision, True)
            case Compact():
                accepted = self.compact_revision < command.revision <= self.revision
                if accepted:
                    self.compact_revision = command.revision
                return CompactResult(self.revision, self.compact_revision, accepted)

    def _advance(self, state: dict[bytes, KeyValue]) -> None:
        self.revision += 1
        self.states[self.revision] = state

    def kept_revisions(self) -> range:
        return range(max(1, self.compact_revision), self.revision + 1)

    def range(self, start: bytes, stop: bytes | None, revision: int) -> list[KeyValue]:
        live = self.states[revision]
        return [live[key] for key in sorted(live) if key >= start and (stop is None or key < stop)]
