"""From a data directory to a running replica, and the two times when a replica's files are exchanged.

Both exchanges (a snapshot takes the place of a log that was cut; a fresh node gives up its empty cluster for
another one) are a switch of the data directory: a whole new generation, log and state together, made durable and
then named by one rename. Term and vote are carried over wherever the cluster stays the same (Raft §5.2).
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from raftkv.errors import DataDirectoryError, PeerProtocolError, StorageError
from raftkv.kv import KeyValueMachine
from raftkv.runtime import wire
from raftkv.runtime.replica import Replica
from raftkv.runtime.settings import Settings
from raftkv.runtime.threads import run_in_thread
from raftkv.storage import (
    Generation,
    LogFiles,
    RocksSettings,
    RocksStore,
    Wal,
    WalSettings,
    WalStep,
    WriteBehind,
    found_log,
    open_log,
)
from raftkv.transport import TlsFiles, TransportSettings
from raftkv.types import Configuration, HardState, Member, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.runtime.node import Node


async def open_replica(node: Node, should_bootstrap: Callable[[], Awaitable[bool]]) -> Replica:
    """Recover what the directory holds; a directory without a cluster asks `should_bootstrap` to make one."""
    directory, settings = node.directory, node.settings
    generation = directory.current
    async with contextlib.AsyncExitStack() as opened:  # closes what is open when anything from here on fails
        wal = await _open_wal(node, generation)
        opened.push_async_callback(wal.aclose)
        is_fresh = wal.last_index == 0 and not wal.base.configuration.voters
        if is_fresh and await should_bootstrap():
            await wal.aclose()
            alone = SnapshotMetadata(configuration=Configuration(voters=(own_member(node),)))
            await run_in_thread(lambda: _found_log(node, generation, alone))
            wal = await _open_wal(node, generation)
            opened.push_async_callback(wal.aclose)
        machine = await run_in_thread(lambda: open_machine(settings, generation.state_directory), KeyValueMachine.close)
        opened.callback(machine.close)
        _check_fit(wal, machine, generation)
        replica = Replica(settings, own_member(node), directory.identity.cluster_id, wal, machine, node)
        opened.pop_all()
    return replica


async def reopen_blank(node: Node, replica: Replica, request: wire.Absorb) -> Replica:
    """Exchange the empty bootstrap for a blank log and state of the cluster in `request`."""

    def exchange() -> tuple[LogFiles, KeyValueMachine]:
        replica.machine.close()
        generation = node.directory.new_generation()
        generation.state_directory.mkdir()
        _found_log(node, generation, SnapshotMetadata(configuration=request.configuration))
        node.directory.switch(generation, cluster_id=request.cluster_id)
        node.directory.remove_leftovers()
        return _open_both(node, generation)

    await replica.log.wal.aclose()
    node.require_sound()  # the log may have failed at the last
    log_files, machine = await run_in_thread(exchange)
    return Replica(node.settings, own_member(node), request.cluster_id, wal_of(node, log_files), machine, node)


def exchange_for_snapshot(
    node: Node, snapshot: SnapshotMetadata, hard_state: HardState, place_state: Callable[[Path], None]
) -> tuple[LogFiles, KeyValueMachine]:
    """Blocking. Make the staged state and a log that begins behind it the node's own; old files must be closed."""
    generation = node.directory.new_generation()
    place_state(generation.state_directory)
    _found_log(node, generation, snapshot, hard_state)
    node.directory.switch(generation)
    node.directory.remove_leftovers()
    log_files, machine = _open_both(node, generation)
    _check_fit(log_files, machine, generation)
    return log_files, machine


def check_staged(settings: Settings, directory: Path, snapshot: SnapshotMetadata) -> None:
    """Blocking. That the staged files are the state that `snapshot` says: after a switch it would be too late.

    Raises `PeerProtocolError`.
    """
    try:
        machine = open_machine(settings, directory, is_read_only=True)
    except StorageError as error:
        raise PeerProtocolError(f"the snapshot's files hold no state: {error}") from error
    position = machine.last_applied, machine.last_applied_term
    machine.close()
    if position != (snapshot.last_index, snapshot.last_term):
        raise PeerProtocolError(
            f"a snapshot of entry {snapshot.last_index} of term {snapshot.last_term} holds a state at {position}"
        )


def wal_of(node: Node, log_files: LogFiles) -> Wal:
    """The log that reports to `node`, which ignores one that was exchanged."""
    wal: Wal = Wal(
        log_files,
        notify=lambda step_number: node.log_is_durable(wal, step_number),
        on_failure=node.failed,
        on_sync=node.log_metrics.observe_sync,
    )
    return wal


def open_machine(settings: Settings, directory: Path, *, is_read_only: bool = False) -> KeyValueMachine:
    """Blocking."""
    rocks = RocksSettings(write_buffer_bytes=settings.write_buffer_bytes, block_cache_bytes=settings.block_cache_bytes)
    store = RocksStore(directory, rocks, is_read_only=is_read_only)
    try:
        return KeyValueMachine(WriteBehind(store))
    except BaseException:
        store.close()
        raise


def wal_settings(settings: Settings) -> WalSettings:
    return WalSettings(segment_size_bytes=settings.segment_size_bytes)


def transport_settings(settings: Settings) -> TransportSettings:
    cert, key, ca = settings.raft_tls_cert_file, settings.raft_tls_key_file, settings.raft_tls_ca_file
    tls = TlsFiles(cert_file=cert, key_file=key, ca_file=ca) if cert and key and ca else None
    return TransportSettings(tls=tls)


def own_member(node: Node) -> Member:
    settings = node.settings
    return Member(node.directory.identity.member_id, settings.node_id, settings.raft_address, settings.server_address)


async def _open_wal(node: Node, generation: Generation) -> Wal:
    log_files = await run_in_thread(lambda: _open_log(node, generation), LogFiles.close)
    return wal_of(node, log_files)


def _open_log(node: Node, generation: Generation) -> LogFiles:
    return open_log(generation.wal_directory, wal_settings(node.settings), node.files)


def _found_log(node: Node, generation: Generation, base: SnapshotMetadata, hard_state: HardState | None = None) -> None:
    """Blocking. Make a log that begins behind `base`; durable on return."""
    step = WalStep(reset=base, hard_state=hard_state)
    found_log(generation.wal_directory, step, wal_settings(node.settings), node.files)


def _open_both(node: Node, generation: Generation) -> tuple[LogFiles, KeyValueMachine]:
    log_files = _open_log(node, generation)
    try:
        return log_files, open_machine(node.settings, generation.state_directory)
    except BaseException:
        log_files.close()
        raise


def _check_fit(log: Wal | LogFiles, machine: KeyValueMachine, generation: Generation) -> None:
    """The state must stand within the log: entries are applied only once durable, and cut only once flushed.

    The term, too: another cluster's state may have applied as many entries.
    """
    index, term = machine.last_applied, machine.last_applied_term
    if log.base.last_index <= index <= log.last_index and log.term(index) == term:
        return
    raise DataDirectoryError(
        f"{generation.directory}: the state has applied entry {index} of term {term}, but the log holds entries "
        f"{log.base.last_index + 1} to {log.last_index}{_term_there(log, index)}: files of different times were mixed. "
        "Restore the whole directory from one backup, or empty it and join the node again"
    )


def _term_there(log: Wal | LogFiles, index: int) -> str:
    return f", and that one is of term {log.term(index)}" if log.base.last_index <= index <= log.last_index else ""
