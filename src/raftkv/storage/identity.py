"""identity.json: who a data directory belongs to, readable by people, protected by a checksum.

The file is small and is always replaced as a whole (temporary name, sync, rename, sync of the directory), so a
crash cannot leave half of it. The checksum is there for disks and for hands: a member that came back under a
wrong member id could vote twice in a term (Raft §5.2), so an edited file is refused.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import google_crc32c

from raftkv.errors import DataDirectoryError
from raftkv.storage import files
from raftkv.types import MemberId

IDENTITY_NAME = "identity.json"
FORMAT_VERSION = 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """`member_id` is this member incarnation, `generation` names the directory that counts."""

    format_version: int
    node_id: str
    cluster_id: int
    member_id: MemberId
    generation: int


def read_identity(path: Path) -> Identity | None:
    """`None` when there is no such file. Raises DataDirectoryError when it is damaged or of a newer format."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        facts = json.loads(data)
        version = facts["format_version"]
        if isinstance(version, int) and version > FORMAT_VERSION:
            raise DataDirectoryError(
                f"{path} has format {version}, this version of raftkv reads up to {FORMAT_VERSION}: "
                "start the newer version that wrote it"
            )
        checksum = facts.pop("checksum")
        identity = Identity(**facts)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _damaged(path, f"it cannot be read ({error!r})") from error
    if checksum != _checksum(facts):
        raise _damaged(path, "its checksum does not match")
    if not _is_plausible(facts):
        raise _damaged(path, "it holds impossible values")
    return identity


def write_identity(path: Path, identity: Identity) -> None:
    """Replace the file; durable on return."""
    facts = dataclasses.asdict(identity)
    facts["checksum"] = _checksum(facts)
    files.replace_file(path, json.dumps(facts, indent=2).encode() + b"\n")


def _checksum(facts: dict[str, Any]) -> str:
    return f"{google_crc32c.value(json.dumps(facts, sort_keys=True).encode()):08x}"


def _is_plausible(facts: dict[str, Any]) -> bool:
    numbers = [facts[name] for name in ("cluster_id", "member_id", "generation")]
    return (
        facts["format_version"] == FORMAT_VERSION
        and isinstance(facts["node_id"], str)
        and all(type(number) is int and 0 < number < 2**63 for number in numbers)
    )


def _damaged(path: Path, problem: str) -> DataDirectoryError:
    return DataDirectoryError(
        f"{path} is damaged: {problem}. Restore the file from a copy; or, when the other members are healthy, "
        "remove the whole data directory and join the node again as a new member"
    )
