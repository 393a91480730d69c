"""A node's data directory: who it is, that nobody else has it open, and which files count.

    DIR/LOCK               held with flock while a process has the directory open; holds its pid
    DIR/identity.json      who this is and which generation counts; the last thing that a switch writes
    DIR/generation-7/wal   the log         both begin together, so a state that came from a snapshot
    DIR/generation-7/state the state       and a log that must begin after it change in one step
    DIR/staging            what is being received or sent; emptied at open

Only the generation that identity.json names exists; any other is what an unfinished switch left, and is removed at
open. A switch makes a whole new generation, syncs it, and then renames a new identity.json over the old:
a crash before the rename leaves the old state, log and identity, a crash after it the new ones, and nothing in between
can be seen. Snapshot install and absorption (leaving an empty bootstrap cluster for another one) are both switches.

Turned down: renaming the state directory and resetting the log one after the other, with rules for every half-way
point; each rule is a place to be wrong where a vote or an acknowledged write may be lost.
"""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
from pathlib import Path

from raftkv.errors import DataDirectoryError, require
from raftkv.storage import files
from raftkv.storage.identity import FORMAT_VERSION, IDENTITY_NAME, Identity, read_identity, write_identity
from raftkv.storage.lock import LOCK_NAME, DirectoryLock
from raftkv.types import MemberId

_GENERATION = re.compile(r"generation-([1-9][0-9]{0,18})")
_STAGING_NAME = "staging"


@dataclasses.dataclass(frozen=True, slots=True)
class Generation:
    """A log and the state that goes with it."""

    directory: Path
    number: int

    @property
    def wal_directory(self) -> Path:
        return self.directory / "wal"

    @property
    def state_directory(self) -> Path:
        return self.directory / "state"


class DataDirectory:
    """An open, locked data directory. Made by `open`; must be closed."""

    def __init__(self, path: Path, lock: DirectoryLock, identity: Identity) -> None:
        self.path = path
        self._lock = lock
        self._identity = identity

    @classmethod
    def open(cls, path: Path, node_id: str) -> DataDirectory:
        """Open the directory of `node_id`, making it, with new random ids, when it is missing or empty.

        Leftovers of an unfinished switch are removed. Raises DataDirectoryError, and changes nothing, when the
        directory is in use, is not a data directory, belongs to another node id, has a newer format, is damaged or may
        not be written.
        """
        with files.explain(f"cannot open the data directory {path}"):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not (path / IDENTITY_NAME).exists():
                _check_is_unused(path)  # before the lock, so that a foreign directory gets not even that
            lock = DirectoryLock.acquire(path / LOCK_NAME)
            try:
                return cls._open_locked(path, lock, node_id)
            except BaseException:
                lock.release()
                raise

    @classmethod
    def _open_locked(cls, path: Path, lock: DirectoryLock, node_id: str) -> DataDirectory:
        identity = read_identity(path / IDENTITY_NAME)
        if identity is None:
            identity = _new_identity(node_id)
            _make_generation(path, identity.generation)
            write_identity(path / IDENTITY_NAME, identity)
            files.sync_directory(path.parent)
        elif identity.node_id != node_id:
            raise DataDirectoryError(
                f"the data directory {path} belongs to node {identity.node_id!r}, not to {node_id!r}: "
                "use the directory of this node, or start with the node id that it belongs to"
            )
        opened = cls(path, lock, identity)
        if not opened.current.directory.is_dir():
            raise DataDirectoryError(
                f"{opened.current.directory} is missing: {path / IDENTITY_NAME} names it as this node's data. "
                "Restore it, or remove the whole data directory and join the node again as a new member"
            )
        opened.remove_leftovers()
        opened._empty_staging()
        return opened

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def current(self) -> Generation:
        """The generation that counts."""
        return generation_of(self.path, self._identity.generation)

    def staging(self, name: str) -> Path:
        """A path in the staging area, on the same file system as the data; nothing exists there on return.

        `name` tells uses apart; a use that ends, however, removes what it made. All is removed at open.
        """
        area = self.path / _STAGING_NAME
        target = area / name
        require(target.parent == area and name not in {"", ".", ".."}, "staging name {} is a path", name)
        with files.explain(f"cannot prepare {target}"):
            area.mkdir(mode=0o700, exist_ok=True)
            files.remove_tree(target)
        return target

    def new_generation(self) -> Generation:
        """Begin a switch: an empty generation beside the current one, with neither `wal` nor `state` in it yet.

        The caller fills both (a staged snapshot is renamed to `state_directory`) and calls `switch`. The log must
        carry over term and vote (HardState): forgetting a vote breaks election safety (Raft §5.2).
        """
        generation = generation_of(self.path, self._identity.generation + 1)
        with files.explain(f"cannot prepare {generation.directory}"):
            files.remove_tree(generation.directory)
            generation.directory.mkdir(mode=0o700)
        return generation

    def switch(
        self, generation: Generation, *, cluster_id: int | None = None, member_id: MemberId | None = None
    ) -> Identity:
        """Make `generation` the one that counts, together with the ids given; durable on return.

        After it nothing may write to the old generation, which `remove_leftovers` deletes. When this raises, the caller
        cannot know which of the two counts: the node has to stop, and opening decides.
        """
        require(generation.number == self._identity.generation + 1, "switch to generation {}", generation.number)
        for part in (generation.wal_directory, generation.state_directory):
            require(part.is_dir(), "switch to a generation without {}", part)
        identity = dataclasses.replace(
            self._identity,
            generation=generation.number,
            cluster_id=self._identity.cluster_id if cluster_id is None else cluster_id,
            member_id=self._identity.member_id if member_id is None else member_id,
        )
        with files.explain(f"cannot switch {self.path} to {generation.directory.name}"):
            files.sync_tree(generation.directory)
            files.sync_directory(self.path)
            write_identity(self.path / IDENTITY_NAME, identity)
        self._identity = identity
        return identity

    def remove_leftovers(self) -> None:
        """Delete every generation but the current one."""
        with files.explain(f"cannot clean up {self.path}"):
            for entry in list(self.path.iterdir()):
                if _GENERATION.fullmatch(entry.name) and entry != self.current.directory:
                    files.remove_tree(entry)

    def _empty_staging(self) -> None:
        files.remove_tree(self.path / _STAGING_NAME)
        (self.path / (IDENTITY_NAME + files.TEMPORARY_SUFFIX)).unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock. Idempotent."""
        self._lock.release()


def check_present(path: Path) -> None:
    """Raise DataDirectoryError when the directory of a running node was removed.

    What it writes from then on would go into files that no start finds again.
    """
    with files.explain(f"the data directory {path} is gone"):
        (path / IDENTITY_NAME).stat()


def generation_of(path: Path, number: int) -> Generation:
    """Where generation `number` of a data directory is, whether it exists or not."""
    return Generation(path / f"generation-{number}", number)


def _new_identity(node_id: str) -> Identity:
    return Identity(
        format_version=FORMAT_VERSION,
        node_id=node_id,
        cluster_id=secrets.randbelow(2**63 - 1) + 1,
        member_id=secrets.randbelow(2**63 - 1) + 1,
        generation=1,
    )


def _make_generation(path: Path, number: int) -> None:
    generation = generation_of(path, number)
    files.remove_tree(generation.directory)
    generation.wal_directory.mkdir(mode=0o700, parents=True)
    generation.state_directory.mkdir(mode=0o700)
    files.sync_tree(generation.directory)


def _check_is_unused(path: Path) -> None:
    """Without identity.json only what a crash during the very first start leaves is accepted, and it holds no data."""
    for entry in path.iterdir():
        if entry.name in {LOCK_NAME, IDENTITY_NAME + files.TEMPORARY_SUFFIX, "lost+found"}:
            continue
        if _GENERATION.fullmatch(entry.name) and not any(names for _, _, names in os.walk(entry)):
            continue
        raise DataDirectoryError(
            f"{path} holds {entry.name!r} but no {IDENTITY_NAME}: it is not a raftkv data directory, or its identity "
            "was lost. Give an empty or new directory, or restore the missing file"
        )
