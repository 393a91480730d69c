"""How a scenario's trace words what happens: one line for a message, one for each change at a server."""

from __future__ import annotations

import dataclasses

from raftkv.raft import Status, decode_configuration
from raftkv.raft.messages import (
    AppendEntries,
    AppendEntriesReply,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    ReadIndex,
    ReadIndexReply,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.types import Configuration, Entry, EntryKind, Role, SnapshotMetadata
from tests.raft.harness import Server


def describe_message(message: Message) -> str:
    kind = type(message).__name__
    return f"{message.sender} -> {message.recipient}  {kind} term {message.term}{_details(message)}"


def _details(message: Message) -> str:
    match message:
        case PreVote() | RequestVote():
            override = ", handed over" if isinstance(message, RequestVote) and message.leadership_transfer else ""
            return f", log ends {message.last_log_index}@{message.last_log_term}{override}"
        case PreVoteReply():
            return f", {'yes' if message.vote_granted else 'no'} to term {message.requested_term}"
        case RequestVoteReply():
            return f", {'yes' if message.vote_granted else 'no'}"
        case AppendEntries():
            entries = f", {_entries(message.entries)}" if message.entries else ""
            where = f", after {message.prev_log_index}@{message.prev_log_term}"
            return f"{where}{entries}, commit {message.leader_commit}{_round(message.read_round)}"
        case AppendEntriesReply():
            if message.success:
                return f", matches up to {message.match_index}{_round(message.read_round)}"
            return f", refuses {message.prev_log_index}, try {message.hint_index}@{message.hint_term}"
        case InstallSnapshot():
            return f", {_snapshot(message.snapshot)}"
        case InstallSnapshotReply():
            return f", matches up to {message.match_index}"
        case TimeoutNow():
            return ""
        case ReadIndex():
            return f", read {message.request_id}"
        case ReadIndexReply():
            return f", read {message.request_id}: " + (f"index {message.read_index}" if message.success else "refused")


def _round(read_round: int) -> str:
    return f", round {read_round}" if read_round else ""


def _entries(entries: tuple[Entry, ...]) -> str:
    if len(entries) > 6:
        return f"{len(entries)} entries {describe_entry(entries[0])} … {describe_entry(entries[-1])}"
    return " ".join(describe_entry(entry) for entry in entries)


def describe_entry(entry: Entry) -> str:
    where = f"{entry.index}@{entry.term}"
    match entry.kind:
        case EntryKind.NOOP:
            return f"{where}:no-op"
        case EntryKind.CONFIGURATION:
            return f"{where}:({describe_configuration(decode_configuration(entry.data))})"
        case EntryKind.COMMANDS:
            return f'{where}:"{entry.data.decode()}"'


def describe_configuration(configuration: Configuration) -> str:
    groups = [
        ("voters", configuration.voters),
        ("and of", configuration.voters_outgoing),
        ("learners", configuration.learners),
        ("learners next", configuration.learners_next),
    ]
    return ", ".join(f"{name} {' '.join(str(m.member_id) for m in group)}" for name, group in groups if group)


def _snapshot(snapshot: SnapshotMetadata) -> str:
    return f"state up to {snapshot.last_index}@{snapshot.last_term}, {describe_configuration(snapshot.configuration)}"


@dataclasses.dataclass
class Looked:
    """What was told of a server already."""

    status: Status
    applied_count: int
    reads_count: int = 0
    refused_count: int = 0
    base_index: int = 0
    effects_count: int = 0


def look(server: Server) -> Looked:
    return Looked(
        server.status,
        server.machine.last_applied,
        len(server.reads),
        len(server.refused_reads),
        server.log.base.last_index,
        len(server.handed_out),
    )


def changes(server: Server, before: Looked) -> list[str]:
    """What is new at `server` since `before`."""
    now, was = server.status, before.status
    lines = []
    if (now.role, now.current_term) != (was.role, was.current_term):
        lines.append(f"{now.role} of term {now.current_term}" if now.role is not Role.FOLLOWER else _follower(now))
    elif now.leader != was.leader:
        lines.append(_follower(now))
    first_written = [
        effects.entries[0].index for effects in server.handed_out[before.effects_count :] if effects.entries
    ]
    if first_written and min(first_written) <= was.last_index:
        lines.append(f"log cut back to {min(first_written) - 1}")
    if server.log.base.last_index != before.base_index:
        lines.append(f"log begins behind {server.log.base.last_index}")
    if now.configuration != was.configuration:
        lines.append(f"configuration: {describe_configuration(now.configuration) or 'none'}")
    if now.transfer_target != was.transfer_target:
        lines.append(f"hands over to {now.transfer_target}" if now.transfer_target else "hands over no more")
    if now.commit_index != was.commit_index:
        lines.append(f"commit {now.commit_index}")
    applied = server.machine.history[before.applied_count :]
    if applied:
        lines.append(f"applies {_entries(tuple(applied))}")
    lines += [
        f"read {read.request_id} may be answered at {read.read_index}" for read in server.reads[before.reads_count :]
    ]
    lines += [f"read {request_id} is refused" for request_id in server.refused_reads[before.refused_count :]]
    return [f"    {server.member_id}: {line}" for line in lines]


def _follower(status: Status) -> str:
    return f"follower of {status.leader or 'nobody'} in term {status.current_term}"


def describe_server(server: Server) -> str:
    """One row of `> status`."""
    if server.is_crashed:
        return f"{server.member_id}  crashed"
    status = server.status
    base = f"[..{server.log.base.last_index}] " if server.log.base.last_index else ""
    terms = " ".join(str(term) for term in server.log_terms())
    return (
        f"{server.member_id}  {status.role:<13} term {status.current_term}, leader {status.leader or '-'}, "
        f"commit {status.commit_index}, log {base}{terms}"
    ).rstrip()
