"""Your own state machine in the simulator: commands in, results out, and whether every copy does the same.

A machine is a class with four methods, which need no base class:

    apply(command: bytes) -> bytes       change the state; the result goes to whoever sent the command
    snapshot() -> bytes                  all of the state; equal states give equal bytes
    restore(data: bytes) -> None         become the state that `snapshot` gave
    random_command(source) -> bytes      a static method: some command, chosen by `source`, a random.Random

It is hosted as the key-value state is: entries in order, a position beside the state, made durable by `flush`, restored
from that after every crash and every snapshot. Each result, and each snapshot, is compared with what the other members
got at the same place in the log, so what depends on a clock, on chance or on the order of a set is found.
"""

from __future__ import annotations

import hashlib
import importlib
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import msgspec

from raftkv.errors import InvalidInput, PeerProtocolError
from raftkv.kv import Command, Compact, Put, decode_batch
from raftkv.runtime import KeyValueCodec, wire
from raftkv.statemachine import OrderedStore
from raftkv.types import Entry, EntryKind

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode

_STATE, _POSITION = b"S", b"P"


class OwnMachine(Protocol):
    """What a user's class has to offer."""

    def apply(self, command: bytes) -> bytes: ...

    def snapshot(self) -> bytes: ...

    def restore(self, data: bytes) -> None: ...

    @staticmethod
    def random_command(source: random.Random) -> bytes: ...


class OwnResult(msgspec.Struct, frozen=True, array_like=True, tag=1):
    """The index at which a command stands in the log, its place in the batch there, and what `apply` gave."""

    position: int
    place: int
    result: bytes


class Position(msgspec.Struct, array_like=True):
    last_applied: int = 0
    last_applied_term: int = 0
    command_count: int = 0


def load_class(spec: str) -> type[OwnMachine]:
    """`module:Class`, found as `import` finds it. Raises `InvalidInput` for what is no state machine."""
    module_name, _, class_name = spec.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidInput(f"--state-machine {spec!r} is not MODULE:CLASS that can be imported: {error}") from error
    missing = [name for name in ("apply", "snapshot", "restore", "random_command") if not hasattr(found, name)]
    if missing:
        raise InvalidInput(
            f"{spec} has no {missing[0]}: a state machine needs apply, snapshot, restore, random_command"
        )
    return cast("type[OwnMachine]", found)


class OwnCodec(KeyValueCodec):
    """Commands travel as puts, whose key tells one from another; results are the machine's bytes."""

    def encode_results(self, results: Sequence[Any]) -> bytes:
        return msgspec.msgpack.encode(results)

    def decode_results(self, data: bytes) -> list[Any]:
        try:
            found = msgspec.msgpack.decode(data, type=list[OwnResult | wire.Failure])
        except msgspec.MsgspecError as error:
            raise PeerProtocolError(f"not the results of a batch: {error}") from error
        return list(found)


class HostedMachine:
    """One copy. Obeys `statemachine.StateMachine`, and has what a replica asks of the key-value machine beside that."""

    def __init__(self, node: SimNode, machine: OwnMachine, store: OrderedStore) -> None:
        self._node = node
        self._store = store
        self._machine = machine
        position = store.get(_POSITION)
        self._position = msgspec.msgpack.decode(position, type=Position) if position is not None else Position()
        if (state := store.get(_STATE)) is not None:
            machine.restore(state)
        self.compact_revision = 1

    @property
    def last_applied(self) -> int:
        return self._position.last_applied

    @property
    def last_applied_term(self) -> int:
        return self._position.last_applied_term

    @property
    def revision(self) -> int:
        """As the key-value state's it grows with every command: a node that has had one is not absorbed."""
        return 1 + self._position.command_count

    def apply(self, entries: Sequence[Entry], *, wants_results: bool = True) -> list[Sequence[object]]:
        del wants_results  # they are compared, whoever waits
        results = [self._apply(entry) for entry in entries]
        if entries:
            count = self._position.command_count + sum(map(len, results))
            self._position = Position(entries[-1].index, entries[-1].term, count)
        return results

    def _apply(self, entry: Entry) -> Sequence[object]:
        commands: Sequence[Command] = decode_batch(entry.data) if entry.kind is EntryKind.COMMANDS else ()
        results = [self._run(entry.index, place, command) for place, command in enumerate(commands)]
        self._node.checks.states.same_everywhere(
            self._node, "apply", entry.index, repr([each.result for each in results])
        )
        return results

    def _run(self, index: int, place: int, command: Command) -> OwnResult:
        if isinstance(command, Put):
            return OwnResult(index, place, bytes(self._machine.apply(command.value)))
        if isinstance(command, Compact):
            self.compact_revision = max(self.compact_revision, command.revision)  # there is no history to forget
        return OwnResult(index, place, b"")

    def prepare(self, entry: Entry) -> None:
        """There is nothing to do ahead."""

    def flush(self) -> None:
        state = bytes(self._machine.snapshot())
        digest = hashlib.blake2b(state, digest_size=8).hexdigest()
        self._node.checks.states.same_everywhere(
            self._node, "snapshot", self.last_applied, f"{len(state)} bytes, {digest}"
        )
        batch = self._store.new_batch()
        batch.put(_STATE, state)
        batch.put(_POSITION, msgspec.msgpack.encode(self._position))
        self._store.write(batch)
        self._store.flush()

    def snapshot(self, directory: Path) -> None:
        """Simulated snapshots are taken from the store."""
        raise NotImplementedError

    def state_hash(self) -> str:
        return hashlib.blake2b(bytes(self._machine.snapshot()), digest_size=8).hexdigest()

    def sweep(self, max_count: int) -> bool:
        del max_count
        return False

    def close(self) -> None:
        self._store.close()
