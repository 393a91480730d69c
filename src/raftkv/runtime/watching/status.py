"""`GET /raft/stats`: the reference program's fields, JSON-ready, and ours beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from raftkv.types import Configuration, Member, Role

if TYPE_CHECKING:
    from raftkv.runtime.replica import Replica

_STATE_NAMES = {
    Role.FOLLOWER: "Follower",
    Role.PRE_CANDIDATE: "Candidate",
    Role.CANDIDATE: "Candidate",
    Role.LEADER: "Leader",
}


def stats_of(replica: Replica) -> dict[str, Any]:
    """Indexes are log positions; `last_contact` is text as in the reference ("0" on the leader, "never", "12ms")."""
    status = replica.raft.status()
    base = replica.log.base
    own = replica.own
    return {
        "node_id": own.node_id,
        "member_id": f"{own.member_id:016x}",
        "cluster_id": f"{replica.cluster_id:016x}",
        "state": _STATE_NAMES[status.role],
        "term": status.current_term,
        "leader": _member_name(replica.leader_member()),
        "last_log_index": status.last_index,
        "last_log_term": status.last_term,
        "first_log_index": status.first_index,
        "commit_index": status.commit_index,
        "applied_index": replica.machine.last_applied,
        "fsm_pending": max(0, status.commit_index - replica.machine.last_applied),
        "last_snapshot_index": base.last_index,
        "last_snapshot_term": base.last_term,
        "latest_configuration": members_of(status.configuration),
        "latest_configuration_index": status.configuration_index,
        "is_configuration_joint": status.configuration.is_joint,
        "num_peers": sum(1 for m in status.configuration.voters if m.member_id != own.member_id),
        "last_contact": replica.standing.last_contact(),
        "protocol_version": 1,
        "protocol_version_min": 1,
        "protocol_version_max": 1,
        "snapshot_version_min": 1,
        "snapshot_version_max": 1,
        "revision": replica.machine.revision,
        "peers": [
            {
                "id": _member_name(status.configuration.members().get(member_id)) or f"{member_id:016x}",
                "state": str(progress.state),
                "match_index": progress.match_index,
                "next_index": progress.next_index,
                "is_learner": progress.is_learner,
                "recent_active": progress.recent_active,
            }
            for member_id, progress in sorted(status.progress.items())
            if member_id != own.member_id
        ],
    }


def members_of(configuration: Configuration) -> list[dict[str, str]]:
    """Every member with its suffrage ("Voter" or "Nonvoter", the reference's words), by node id."""
    voters = {m.member_id for m in configuration.voters + configuration.voters_outgoing}
    return [
        {
            "suffrage": "Voter" if member.member_id in voters else "Nonvoter",
            "id": member.node_id,
            "address": member.raft_address,
            "http_address": member.http_address,
        }
        for member in sorted(configuration.members().values(), key=lambda m: m.node_id)
    ]


def _member_name(member: Member | None) -> str:
    return member.node_id if member is not None else ""
