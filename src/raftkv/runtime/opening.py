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

from raftkv.errors import DataDirectoryError, StorageError
from raftkv.kv import KeyValueMachine
from raftkv.runtime import wire
from raftkv.runtime.replica import Replica
from raftkv.runtime.settings import Settings
from raftkv.runtime.threads import run_in_thread
from raftkv.storage import Generation, RocksSettings, RocksStore, Wal, WalSettings, WalStep
from raftkv.transport import TlsFiles, TransportSettings
from raftkv.types import Configuration, HardState, Member, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.runtime.node import Node


async def open_replica(node: Node, should_bootstrap: Callable[[], Awaitable[bool]]) -> Replica:
    """Recover what the directory holds; a directory without a cluster asks `should_bootstrap` to make one."""
    directory, settings = node.directory, node.settings
    generation = directory.current
    with contextlib.ExitStack() as opened:  # closes what is open when anything from here on fails
        wal = await run_in_thread(lambda: open_wal(node, generation.wal_directory), Wal.close)
        opened.callback(wal.close)
        is_fresh = wal.last_index == 0 and not wal.base.configuration.voters
        if is_fresh and await should_bootstrap():
            wal.close()
            alone = SnapshotMetadata(configuration=Configuration(voters=(own_member(node),)))
            await run_in_thread(lambda: found_log(node, generation.wal_directory, alone))
            wal = await run_in_thread(lambda: open_wal(node, generation.wal_directory), Wal.close)
            opened.callback(wal.close)
        machine = await run_in_thread(lambda: open_machine(settings, generation.state_directory), KeyValueMachine.close)
        opened.callback(machine.close)
        _check_fit(wal, machine, generation)
        replica = Replica(settings, own_member(node), directory.identity.cluster_id, wal, machine, node)
        opened.pop_all()
    return replica


async def reopen_blank(node: Node, replica: Replica, request: wire.Absorb) -> Replica:
    """Exchange the empty bootstrap for a blank log and state of the cluster in `request`."""

    def exchange() -> tuple[Wal, KeyValueMachine]:
        replica.log.wal.close()
        replica.machine.close()
        generation = node.directory.new_generation()
        generation.state_directory.mkdir()
        found_log(node, generation.wal_directory, SnapshotMetadata(configuration=request.configuration))
        node.directory.switch(generation, cluster_id=request.cluster_id)
        node.directory.remove_leftovers()
        return _open_both(node, generation)

    wal, machine = await run_in_thread(exchange)
    return Replica(node.settings, own_member(node), request.cluster_id, wal, machine, node)


def exchange_for_snapshot(
    node: Node, snapshot: SnapshotMetadata, hard_state: HardState, place_state: Callable[[Path], None]
) -> tuple[Wal, KeyValueMachine]:
    """Blocking. Make the staged state and a log that begins behind it the node's own; old files must be closed."""
    generation = node.directory.new_generation()
    place_state(generation.state_directory)
    found_log(node, generation.wal_directory, snapshot, hard_state)
    node.directory.switch(generation)
    node.directory.remove_leftovers()
    wal, machine = _open_both(node, generation)
    _check_fit(wal, machine, generation)
    return wal, machine


def open_wal(node: Node, directory: Path) -> Wal:
    """Blocking. The log's thread reports to the loop of `node`, which ignores a log that was exchanged."""
    call_soon_threadsafe = node.loop.call_soon_threadsafe
    opened: list[Wal] = []

    def notify(step_number: int) -> None:
        call_soon_threadsafe(node.log_is_durable, opened[0], step_number)

    def on_failure(error: StorageError) -> None:
        call_soon_threadsafe(node.failed, error)

    wal = Wal.open(
        directory,
        wal_settings(node.settings),
        notify=notify,
        on_failure=on_failure,
        on_sync=node.log_metrics.observe_sync,
        files=node.files,
    )
    opened.append(wal)
    return wal


def open_machine(settings: Settings, directory: Path) -> KeyValueMachine:
    """Blocking."""
    rocks = RocksSettings(write_buffer_bytes=settings.write_buffer_bytes, block_cache_bytes=settings.block_cache_bytes)
    store = RocksStore(directory, rocks)
    try:
        return KeyValueMachine(store)
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


def found_log(node: Node, directory: Path, base: SnapshotMetadata, hard_state: HardState | None = None) -> None:
    """Blocking. Make a log that begins behind `base`; durable on return."""
    failures: list[StorageError] = []
    settings = wal_settings(node.settings)
    wal = Wal.open(directory, settings, notify=lambda _: None, on_failure=failures.append, files=node.files)
    wal.write(WalStep(reset=base, hard_state=hard_state))
    wal.close()
    if failures:
        raise failures[0]


def _open_both(node: Node, generation: Generation) -> tuple[Wal, KeyValueMachine]:
    wal = open_wal(node, generation.wal_directory)
    try:
        return wal, open_machine(node.settings, generation.state_directory)
    except BaseException:
        wal.close()
        raise


def _check_fit(wal: Wal, machine: KeyValueMachine, generation: Generation) -> None:
    """The state must stand within the log: entries are applied only once durable, and cut only once flushed."""
    if not wal.base.last_index <= machine.last_applied <= wal.last_index:
        raise DataDirectoryError(
            f"{generation.directory}: the state has applied entry {machine.last_applied}, but the log holds entries "
            f"{wal.base.last_index + 1} to {wal.last_index}: files of different times were mixed. Restore the whole "
            "directory from one backup, or empty it and join the node again"
        )
