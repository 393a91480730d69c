"""The consensus core: Raft as a pure function (messages and ticks in, `Effects` out).

Must never: read a clock, touch a disk or a socket, start a thread, use `async` or global randomness, or know what a
command means. May use: `types`, `errors`.

Reading order: `messages`, `effects` (the caller's duty), `node` (the face), `state`, then one decision a file:
`election`, `follower`, `replication`, `acknowledgement`, `commitment`, `membership`, `reads`, `transfer`, `snapshot`;
below them `log`, `progress`, `quorum`, `configurations`; beside them `validation`, `invariants`, `outputs`, `status`.
"""

from raftkv.raft.configurations import configuration_problem, decode_configuration, encode_configuration
from raftkv.raft.effects import ConfirmedRead, Effects, Leadership
from raftkv.raft.log import LogStorage
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
    decode_message,
    encode_message,
)
from raftkv.raft.node import RaftNode
from raftkv.raft.settings import RaftSettings
from raftkv.raft.state import RaftState
from raftkv.raft.status import PeerStatus, Status

__all__ = [
    "AppendEntries",
    "AppendEntriesReply",
    "ConfirmedRead",
    "Effects",
    "InstallSnapshot",
    "InstallSnapshotReply",
    "Leadership",
    "LogStorage",
    "Message",
    "PeerStatus",
    "PreVote",
    "PreVoteReply",
    "RaftNode",
    "RaftSettings",
    "RaftState",
    "ReadIndex",
    "ReadIndexReply",
    "RequestVote",
    "RequestVoteReply",
    "Status",
    "TimeoutNow",
    "configuration_problem",
    "decode_configuration",
    "decode_message",
    "encode_configuration",
    "encode_message",
]
