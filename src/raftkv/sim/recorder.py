"""What the cores of a simulated cluster did, as a sequence of the specification's actions (`spec/TraceRaftkv.tla`).

A core is looked at before and after each of its inputs, and the difference is told as the actions that explain it,
in the order in which the core does such things: a term, a role, a commit, an append, a resignation. Messages are told
when they leave, so that the specification can say whether they might. What changes nothing is left out.

Off by default: `Recorder(cluster)` puts it on, before the cluster starts. It then replaces the class of each core and
replica by one that tells; without it nothing is slower. Turned down: observers inside the core, which would be there in
production too.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from raftkv.raft import (
    AppendEntries,
    AppendEntriesReply,
    Effects,
    InstallSnapshot,
    InstallSnapshotReply,
    Message,
    PreVote,
    PreVoteReply,
    RaftNode,
    RequestVote,
    RequestVoteReply,
    TimeoutNow,
)
from raftkv.sim.cluster import Cluster
from raftkv.sim.node import ObservedReplica
from raftkv.sim.run import Plan
from raftkv.sim.workload import Workload
from raftkv.types import Configuration, EntryKind, MemberId, Role, SnapshotMetadata

if TYPE_CHECKING:
    from raftkv.sim.node import SimNode

Value: TypeAlias = "int | bool | str | tuple[int, ...] | frozenset[int]"


class Core(NamedTuple):
    """What the specification knows of one core. `terms` are of the entries behind `base_index`."""

    term: int
    vote: MemberId
    role: Role
    commit_index: int
    base_index: int
    terms: tuple[int, ...]

    @property
    def last_index(self) -> int:
        return self.base_index + len(self.terms)


class Action(NamedTuple):
    """`after` is what its server must look like then; None in the middle of an input."""

    name: str
    member_id: MemberId
    arguments: dict[str, Value]
    after: Core | None


class Recorder:
    """Of one cluster; `actions` grows while it runs."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.actions: list[Action] = []
        self.founders = frozenset(node.member.member_id for node in cluster.nodes if self._is_ours(node))
        self._opened = cluster.checks.opened
        cluster.checks.opened = self._process_opened  # type: ignore[method-assign]

    def _is_ours(self, node: SimNode) -> bool:
        return node.cluster_id == self.cluster.cluster_id

    def _process_opened(self, node: SimNode) -> None:
        self._opened(node)
        if self._is_ours(node):
            raft = node.replica.raft
            watch = Watch(self, raft)
            raft.__class__ = _ToldCore
            _WATCHES[id(raft)] = watch
            node.replica.__class__ = _ToldReplica
            watch.tell("restart", watch.look())

    def close(self) -> None:
        _WATCHES.clear()

    def members(self) -> frozenset[MemberId]:
        named = frozenset(
            member for action in self.actions for value in action.arguments.values() if isinstance(value, frozenset)
            for member in value
        )  # fmt: skip
        return self.founders | named | {action.member_id for action in self.actions}


class Watch:
    """On one process's core."""

    def __init__(self, recorder: Recorder, raft: RaftNode) -> None:
        self._recorder = recorder
        self._raft = raft
        self._state = raft._state
        self._member_id: MemberId = raft._state.member_id
        self._steps_under_way: list[int] = []
        self._told: set[tuple[Any, ...]] = set()
        self._largest_match = (0, 0)
        self._waiting: list[Message] | None = None
        """Messages that leave with a step whose durability the core is about to be told of."""

    def tell(self, name: str, after: Core | None = None, /, **arguments: Value) -> None:
        self._recorder.actions.append(Action(name, self._member_id, arguments, after))

    def tell_once(self, name: str, **arguments: Value) -> None:
        key = (name, *arguments.items())
        if key not in self._told:
            self._told.add(key)
            self.tell(name, **arguments)

    def look(self) -> Core:
        state, log = self._state, self._state.log
        terms = tuple(log.term(index) for index in range(log.base_index + 1, log.last_index + 1))
        return Core(state.current_term, state.voted_for, state.role, state.commit_index, log.base_index, terms)

    # Inputs

    def step(self, message: Message, act: Callable[[], None]) -> None:
        state = self._state
        before, answered_count, sent_count = self.look(), len(state.replies), len(state.messages)
        act()
        now = self.look()
        answers = [*state.replies[answered_count:], *state.messages[sent_count:]]
        if not self._tell_answered(message, answers, before, now):
            self._tell_difference(before, now, message, has_asked=any(isinstance(m, PreVote) for m in answers))

    def other(self, act: Callable[[], Any]) -> Any:
        before, sent_count = self.look(), len(self._state.messages)
        result = act()
        has_asked = any(isinstance(message, PreVote) for message in self._state.messages[sent_count:])
        self._tell_difference(before, self.look(), None, has_asked)
        return result

    def _tell_answered(self, message: Message, answers: list[Message], before: Core, now: Core) -> bool:
        """A message that was taken as what it asks for: one action of the specification."""
        for answer in answers:
            match message, answer:
                case AppendEntries(), AppendEntriesReply(success=True):
                    match_now = (now.term, answer.match_index)
                    if message.entries or now != before or match_now > self._largest_match:
                        self._largest_match = max(self._largest_match, match_now)
                        self.tell("append", now, **_stretch(message))
                    return True
                case InstallSnapshot(snapshot=snapshot), InstallSnapshotReply() if message.term == now.term:
                    self.tell("install", now, **_restored(message.term, snapshot))
                    return True
                case RequestVote(), RequestVoteReply(vote_granted=True):
                    self.tell("vote", now, **_request(message))
                    return True
                case PreVote(), PreVoteReply(vote_granted=True):
                    self.tell("preVote", now, **_request(message))
                    return True
        return False

    def _tell_difference(self, before: Core, now: Core, message: Message | None, has_asked: bool) -> None:
        found: list[tuple[str, dict[str, Value]]] = []
        term, role, last_index = before.term, before.role, before.last_index
        if message is not None and not isinstance(message, PreVote) and term < message.term <= now.term:
            term, role = message.term, Role.FOLLOWER
            found.append(("term", {"term": term}))
        is_new_candidate = now.term == term + 1 and now.vote == self._member_id
        is_asking = now.role is Role.PRE_CANDIDATE and (role is not Role.PRE_CANDIDATE or has_asked)
        if is_asking or (is_new_candidate and role is not Role.PRE_CANDIDATE and not isinstance(message, TimeoutNow)):
            found.append(("preCandidate", {}))
            role = Role.PRE_CANDIDATE
        if is_new_candidate:
            found.append(("candidate", {}))
            role = Role.CANDIDATE
        if now.role is Role.LEADER and role is not Role.LEADER:
            found.append(("leader", {}))
            role, last_index = Role.LEADER, last_index + 1
        if role is Role.LEADER:
            if now.commit_index > before.commit_index:
                found.append(("commit", {"index": now.commit_index}))
            found += [self._own_entry(index) for index in range(last_index + 1, now.last_index + 1)]
        if role is not Role.FOLLOWER and now.role is Role.FOLLOWER:
            found.append(("stepDown", {}))
        if not found and now != before:
            found.append(("unknown", {}))
        for number, (name, arguments) in enumerate(found, 1):
            self.tell(name, now if number == len(found) else None, **arguments)

    def _own_entry(self, index: int) -> tuple[str, dict[str, Value]]:
        entry = self._state.log.entries(index, index, 1)[0]
        if entry.kind is not EntryKind.CONFIGURATION:
            return "command", {}
        return "config", _voters(self._state.configurations.at(index)[1])

    # Durability

    def ready(self, act: Callable[[], Effects]) -> Effects:
        effects = act()
        if effects.ticket:
            self._steps_under_way.append(effects.ticket)
            self.tell("handOut", self.look())
        return effects

    def durable(self, act: Callable[[], None]) -> None:
        """The driver lets messages go and reports: in the specification the report is what lets them go."""
        self._waiting = []
        act()
        self._let_go()

    def persisted(self, ticket: int, act: Callable[[], None]) -> None:
        while self._steps_under_way and self._steps_under_way[0] <= ticket:
            del self._steps_under_way[0]
            self.tell("durable")
        self._let_go()
        self.other(act)

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, None
        for message in waiting or ():
            self.sent(message)

    # Messages

    def sent(self, message: Message) -> None:
        if self._waiting is not None:
            self._waiting.append(message)
            return
        match message:
            case RequestVote():
                self.tell_once("sentRequest", **_request(message))
            case RequestVoteReply(vote_granted=True):
                self.tell_once("sentVote", term=message.term, candidate=message.recipient)
            case PreVoteReply(vote_granted=True):
                self.tell_once("sentPreVote", term=message.requested_term, candidate=message.recipient)
            case AppendEntries():
                self.tell_once("sentAppend", **_stretch(message))
            case AppendEntriesReply(success=True):
                self.tell_once("sentMatch", term=message.term, index=message.match_index)
            case InstallSnapshotReply(match_index=index) if index:
                self.tell_once("sentMatch", term=message.term, index=index)
            case TimeoutNow():
                self.tell_once("handOver", term=message.term, heir=message.recipient)

    # Snapshots

    def described(self, snapshot: SnapshotMetadata) -> None:
        if self._raft.is_leader and snapshot.last_index:
            self.tell_once("snapshot", term=self._state.current_term, index=snapshot.last_index)

    def compacted(self, act: Callable[[], None]) -> None:
        base_index = self._state.log.base_index
        act()
        now = self.look()
        if now.base_index > base_index:
            self.tell("compact", now, index=now.base_index)


_WATCHES: dict[int, Watch] = {}
"""By the core's `id`: a core has no room for more."""


class _ToldCore(RaftNode):
    """Of the same layout as its base, so that a core can become one."""

    __slots__ = ()

    @property
    def _watch(self) -> Watch:
        return _WATCHES[id(self)]

    def tick(self, elapsed_ticks: int = 1) -> None:
        self._watch.other(lambda: super(_ToldCore, self).tick(elapsed_ticks))

    def step(self, message: Message) -> None:
        self._watch.step(message, lambda: super(_ToldCore, self).step(message))

    def campaign(self) -> None:
        self._watch.other(super().campaign)

    def propose(self, data: bytes) -> tuple[int, int]:
        return self._watch.other(lambda: super(_ToldCore, self).propose(data))  # type: ignore[no-any-return]

    def propose_configuration(self, voters: Any, learners: Any) -> int:
        return self._watch.other(  # type: ignore[no-any-return]
            lambda: super(_ToldCore, self).propose_configuration(voters, learners)
        )

    def transfer_leadership(self, target: MemberId | None = None) -> None:
        self._watch.other(lambda: super(_ToldCore, self).transfer_leadership(target))

    def persisted(self, ticket: int) -> None:
        self._watch.persisted(ticket, lambda: super(_ToldCore, self).persisted(ticket))

    def ready(self) -> Effects:
        return self._watch.ready(super().ready)

    def compacted(self) -> None:
        self._watch.compacted(super().compacted)

    def describe_snapshot(self, last_index: int) -> SnapshotMetadata:
        snapshot = super().describe_snapshot(last_index)
        self._watch.described(snapshot)
        return snapshot


class _ToldReplica(ObservedReplica):
    def send(self, message: Message) -> None:
        _WATCHES[id(self.raft)].sent(message)
        super().send(message)

    def durable(self, step_number: int) -> None:
        _WATCHES[id(self.raft)].durable(lambda: super(_ToldReplica, self).durable(step_number))


def _request(message: PreVote | RequestVote) -> dict[str, Value]:
    return {
        "term": message.term,
        "candidate": message.sender,
        "lastIndex": message.last_log_index,
        "lastTerm": message.last_log_term,
    }


def _stretch(message: AppendEntries) -> dict[str, Value]:
    return {
        "term": message.term,
        "prev": message.prev_log_index,
        "prevTerm": message.prev_log_term,
        "commit": message.leader_commit,
        "terms": tuple(entry.term for entry in message.entries),
    }


def _restored(term: int, snapshot: SnapshotMetadata) -> dict[str, Value]:
    return {
        "term": term,
        "index": snapshot.last_index,
        "lastTerm": snapshot.last_term,
        "configIndex": snapshot.configuration_index,
        **_voters(snapshot.configuration),
    }


def _voters(configuration: Configuration) -> dict[str, Value]:
    return {
        "new": frozenset(member.member_id for member in configuration.voters),
        "old": frozenset(member.member_id for member in configuration.voters_outgoing),
    }


def record(plan: Plan, count: int) -> Recorder:
    """Run `plan` until `count` actions were told, its time is over, or something is wrong."""
    cluster = Cluster(plan.seed, plan.node_count, plan.spare_count, plan.tuning)
    recorder = Recorder(cluster)
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)  # the nodes' logs would be of whole clusters
    try:
        cluster.start()
        Workload(cluster, client_count=plan.client_count, think_s=plan.think_s, lease_share=plan.lease_share)
        for fault in plan.planned_faults():
            cluster.world.call_at(fault.at_s, fault.happen, cluster)
        cluster.world.run(plan.duration_s, lambda: len(recorder.actions) >= count or bool(cluster.checks.violations))
    finally:
        logging.disable(before)
        recorder.close()
    return recorder


# As a TLA+ module


def as_module(recorder: Recorder, count: int | None = None) -> str:
    """The module `TraceData`: the first `count` actions, and what the specification's constants are for them."""
    actions = recorder.actions[:count]
    terms = [value for a in actions for key, value in a.arguments.items() if key == "term" and isinstance(value, int)]
    terms += [action.after.term for action in actions if action.after is not None]
    lines = [
        "---- MODULE TraceData ----",
        "EXTENDS Integers",
        f"TraceServers == {_tla(recorder.members())}",
        f"TraceFounders == {_tla(recorder.founders)}",
        f"TraceMaxTerm == {max(terms, default=0) + 1}",
        "Trace == <<",
        ",\n".join(_record(action) for action in actions),
        ">>",
        "====",
    ]
    return "\n".join(lines) + "\n"


def _record(action: Action) -> str:
    fields: dict[str, Value] = {"name": action.name, "server": action.member_id, **action.arguments}
    text = ", ".join(f"{name} |-> {_tla(value)}" for name, value in fields.items())
    after = action.after
    if after is None:
        return f"[{text}, isLast |-> FALSE]"
    return (
        f"[{text}, isLast |-> TRUE, after |-> [term |-> {after.term}, vote |-> {after.vote}, "
        f'role |-> "{after.role.value}", commit |-> {after.commit_index}, base |-> {after.base_index}, '
        f"terms |-> {_tla(after.terms)}]]"
    )


def _tla(value: Value) -> str:
    if isinstance(value, bool):
        return str(value).upper()
    if isinstance(value, tuple):
        return f"<<{', '.join(map(str, value))}>>"
    if isinstance(value, frozenset):
        return f"{{{', '.join(map(str, sorted(value)))}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)
