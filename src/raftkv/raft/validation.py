"""Is a decoded message one that a server of ours could have sent to this one?

Decoding proves types only. What passes here may still be old, doubled or of a wrong leader; what fails is dropped and
counted, so that no peer can make a server stop with an `InvariantViolation` by sending nonsense.
"""

from __future__ import annotations

from raftkv.errors import InvalidInput
from raftkv.raft.configurations import configuration_problem, decode_configuration
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
from raftkv.raft.state import RaftState
from raftkv.types import EntryKind

NUMBER_MAX = 1 << 62
"""No honest term or index comes near it; it leaves room to count on in 64 bits."""

TERM_LEAP_MAX = NUMBER_MAX // 2
TERM_STEP_MAX = 1 << 20
"""Terms beyond the leap are only reached in steps. Otherwise one message with the highest term would be the end of
elections: terms are kept on disk, and there would be no higher one left to campaign in."""


def is_sane(state: RaftState, message: Message) -> bool:
    me = state.member_id
    if message.recipient != me or message.sender == me or message.sender <= 0:
        return False
    if not 0 <= message.term <= min(NUMBER_MAX, max(state.current_term, TERM_LEAP_MAX) + TERM_STEP_MAX):
        return False
    match message:
        case AppendEntries():
            return _is_sane_append(message)
        case AppendEntriesReply():
            return (
                0 <= message.match_index <= NUMBER_MAX
                and 0 <= message.prev_log_index <= NUMBER_MAX
                and 0 <= message.hint_index <= NUMBER_MAX
                and 0 <= message.hint_term <= NUMBER_MAX
                and message.read_round >= 0
            )
        case PreVote() | RequestVote():
            return (
                0 <= message.last_log_term <= message.term
                and 0 <= message.last_log_index <= NUMBER_MAX
                and message.term > 0
            )
        case InstallSnapshot():
            return _is_sane_snapshot(message)
        case InstallSnapshotReply():
            return 0 <= message.match_index <= NUMBER_MAX and message.read_round >= 0
        case ReadIndexReply():
            return 0 <= message.read_index <= NUMBER_MAX
        case PreVoteReply() | RequestVoteReply() | ReadIndex() | TimeoutNow():
            return True


def _is_sane_append(message: AppendEntries) -> bool:
    index, term = message.prev_log_index, message.prev_log_term
    if not (0 <= index <= NUMBER_MAX and message.term > 0 and message.leader_commit >= 0 and message.read_round >= 0):
        return False
    if term < 0 or (index == 0 and term != 0):
        return False
    for entry in message.entries:
        index += 1
        if entry.index != index or entry.term < term:
            return False
        term = entry.term
        if entry.kind == EntryKind.CONFIGURATION and not _is_configuration(entry.data):
            return False
    return term <= message.term and index <= NUMBER_MAX


def _is_configuration(data: bytes) -> bool:
    try:
        decode_configuration(data)
    except InvalidInput:
        return False
    return True


def _is_sane_snapshot(message: InstallSnapshot) -> bool:
    snapshot = message.snapshot
    return (
        0 < snapshot.last_index <= NUMBER_MAX
        and 0 <= snapshot.last_term <= message.term
        and 0 <= snapshot.configuration_index <= snapshot.last_index
        and message.read_round >= 0
        and not configuration_problem(snapshot.configuration)
    )
