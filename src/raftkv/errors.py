"""Every error of raftkv, drawn once. Each answers: whose fault, did it happen, may I retry?

    RaftkvError
    ├── Rejected                  surely not applied; the text says what to change
    │   ├── InvalidInput          the caller's request is wrong (SettingsError, UnsupportedMediaType)
    │   │   └── TooLarge          over a documented limit
    │   ├── KeyNotFound
    │   ├── Unavailable           not now, try again (NotLeader, NoLeader, Overloaded, NotReady,
    │   │                         ReadTimeout, DiskFull, ShuttingDown)
    │   └── MembershipRefused     join or remove would be unsafe; nothing was changed
    │       └── ConfigurationInProgress
    ├── OutcomeUnknown            perhaps applied, or may yet be; read before you repeat it
    ├── StorageError              the disk or what is on it; the node stops
    │   ├── CorruptData           a checksum or a structure is wrong: names file and offset
    │   ├── SyncFailed            a write or fdatasync failed: nothing more may be acknowledged
    │   └── DataDirectoryError    locked, foreign, or of a newer format
    ├── PeerProtocolError         what came in on the peer port is not ours; only that connection ends
    └── InvariantViolation        our own bug; the node stops rather than answer wrongly

Facts are attributes, so that `api/status.py` and the command line need not read texts.
"""

from __future__ import annotations

import re


class RaftkvError(Exception):
    """The root of the tree."""


class Rejected(RaftkvError):
    """Surely not applied, now or later."""


class InvalidInput(Rejected):
    """The request itself is wrong; sending it again cannot help."""


class SettingsError(InvalidInput):
    """A setting is wrong; `setting` is its name as the user wrote it."""

    def __init__(self, setting: str, problem: str) -> None:
        super().__init__(f"{setting}: {problem}")
        self.setting = setting
        self.problem = problem


class UnsupportedMediaType(InvalidInput):
    """The body is not declared as a type that the route reads."""


class TooLarge(InvalidInput):
    """`what` has `size_bytes`, over `limit_bytes`."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int, setting: str = "") -> None:
        hint = f" (setting {setting})" if setting else ""
        super().__init__(f"{what} has {size_bytes} bytes, the limit is {limit_bytes}{hint}")
        self.what = what
        self.size_bytes = size_bytes
        self.limit_bytes = limit_bytes


class KeyNotFound(Rejected):
    """The key has no value at the revision that was read."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key {key!r} not found")
        self.key = key


class Unavailable(Rejected):
    """Nothing is wrong with the request; this node cannot take it now."""


class NotLeader(Unavailable):
    """Only the leader takes this; `leader_address` is its HTTP address, empty when unknown."""

    def __init__(self, leader_node_id: str = "", leader_address: str = "") -> None:
        super().__init__("not the leader")
        self.leader_node_id = leader_node_id
        self.leader_address = leader_address


class NoLeader(Unavailable):
    """No leader is known, so nothing can be decided now."""


class Overloaded(Unavailable):
    """A bounded queue is full; nothing was queued."""


class NotReady(Unavailable):
    """The node has not yet applied what the cluster had committed when it started."""


class ReadTimeout(Unavailable):
    """A read could not be confirmed in time; reads change nothing, so try again."""


class DiskFull(Unavailable):
    """Less free space than the reserve: writes are refused, reads go on."""


class ShuttingDown(Unavailable):
    """The node is stopping and takes no new work."""


class MembershipRefused(Rejected):
    """A change of members would be unsafe or impossible; nothing was changed."""


class ConfigurationInProgress(MembershipRefused):
    """Another change of members is under way, or the leader has not committed in its term yet."""


class OutcomeUnknown(RaftkvError):
    """The write may be applied, or may yet be: it must not be reported as failed."""


class StorageError(RaftkvError):
    """The disk, or what is on it, cannot be trusted; the node stops."""


class CorruptData(StorageError):
    """`path` holds something wrong at `offset_bytes` (-1 when the whole file is meant)."""

    def __init__(self, path: str, offset_bytes: int, problem: str) -> None:
        where = f" at offset {offset_bytes}" if offset_bytes >= 0 else ""
        super().__init__(f"{path}{where}: {problem}")
        self.path = path
        self.offset_bytes = offset_bytes
        self.problem = problem


class SyncFailed(StorageError):
    """A write or sync failed. Pages may be lost although a later sync succeeds, so this is final."""


class DataDirectoryError(StorageError):
    """The data directory is locked, belongs to someone else, or has a newer format."""


class PeerProtocolError(RaftkvError):
    """Bytes on the peer port that no raftkv node of this cluster would send."""


class InvariantViolation(RaftkvError):
    """A fact that must always hold does not. Nobody catches this; the node stops."""


def error_code(kind: type[BaseException]) -> str:
    """How the class is called in answers, for programs: `NotLeader` is `not_leader`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


def require(condition: object, fact: str, *values: object) -> None:
    """Check a safety rule; unlike `assert` it survives `python -O`. `fact` may hold `{}` for values."""
    if not condition:
        raise InvariantViolation(fact.format(*values))
