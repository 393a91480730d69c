"""Bugs of changing members (Raft §6, Thesis §4) and of joining."""

from tests.mutants.mutant import Edit, mutant

MEMBERS = (
    mutant(
        "configuration-in-force-when-applied",
        "who votes changes only when the entry is applied",
        "Raft §6",
        Edit(
            "raft/state.py",
            "        if changed:\n            self.adopt_configuration()\n",
            "        self.configuration_changed = self.configuration_changed or changed\n",
        ),
        Edit(
            "raft/outputs.py",
            "    state.last_applied = max(state.last_applied, index)",
            "    state.last_applied = max(state.last_applied, index)\n"
            "    if index >= state.configuration_index:\n"
            "        state.adopt_configuration()\n"
            "        state.configuration_changed = False",
        ),
        seed=2,
    ),
    mutant(
        "joint-left-too-early",
        "the joint configuration is left before it is committed",
        "Raft §6",
        Edit(
            "raft/membership.py",
            "if not joint.is_joint or state.commit_index < max(state.configuration_index, leading.term_start_index):",
            "if not joint.is_joint or state.commit_index < leading.term_start_index:",
        ),
    ),
    mutant(
        "inherited-joint-never-left",
        "only the leader that entered a joint configuration leaves it",
        "row 2, camunda#60086",
        Edit(
            "raft/membership.py",
            "if not joint.is_joint or state.commit_index < max(",
            "if not joint.is_joint or state.configuration_index < leading.term_start_index or "
            "state.commit_index < max(",
        ),
    ),
    mutant(
        "change-before-own-term-commit",
        "a new leader changes members before anything of its term is committed",
        "row 1, Ongaro 2015",
        Edit(
            "raft/membership.py",
            "    if state.commit_index < leading.term_start_index:\n        raise",
            "    if state.commit_index < 0:\n        raise",
        ),
    ),
    mutant(
        "change-over-a-change",
        "a change begins while the one before is not committed",
        "Thesis §4.1",
        Edit(
            "raft/membership.py",
            "    if state.configuration.is_joint or state.configuration_index > state.commit_index:\n        raise",
            "    if state.configuration.is_joint:\n        raise",
        ),
    ),
    mutant(
        "voters-exchanged-in-one-step",
        "a change of voters goes without a joint configuration",
        "Raft §6",
        Edit(
            "raft/membership.py",
            "    if before == {member.member_id for member in target.voters}:\n",
            "    if before:\n",
        ),
        seed=4,
    ),
    mutant(
        "truncated-configuration-kept",
        "a configuration stays in force though its entry was truncated",
        "row 2",
        Edit(
            "raft/state.py",
            "        if self.configurations.truncate_from(index):\n            self.adopt_configuration()\n",
            "",
        ),
        Edit(
            "raft/configurations.py",
            "        require(index > self.index,",
            "        require(index > 0,",
        ),
    ),
    mutant(
        "removed-leader-stays",
        "a leader that removed itself goes on",
        "row 3",
        Edit(
            "raft/commitment.py",
            "    if state.is_voter or state.configuration.is_joint or",
            "    if state.leading is leading or state.configuration.is_joint or",
        ),
    ),
    mutant(
        "removed-server-campaigns",
        "a server whose removal is committed campaigns again",
        "rows 3 and 12, hashicorp/raft#524",
        Edit(
            "raft/election.py",
            "    if not can_campaign(state):\n",
            "    if not state.voters.all:\n",
        ),
    ),
    mutant(
        "wiped-voter-under-its-old-identity",
        "a node that answers at a member's address is taken for that member",
        "row 12, dragonboat#350",
        Edit(
            "runtime/membership/changes.py",
            "if existing is not None and existing.member_id == target.member_id and target.cluster_id == "
            "core.cluster_id:",
            "if existing is not None and existing.raft_address == raft_address:",
        ),
    ),
    mutant(
        "wiped-voter-stays-beside-its-successor",
        "the forgotten identity of a wiped voter keeps its vote",
        "row 12",
        Edit(
            "runtime/membership/changes.py",
            "        voters = _without(configuration.voters, member.node_id)\n"
            "        if not voters:\n"
            "            raise MembershipRefused(\n"
            '                f"{member.node_id} is the only voter and',
            "        voters = list(configuration.voters)\n"
            "        if not voters:\n"
            "            raise MembershipRefused(\n"
            '                f"{member.node_id} is the only voter and',
        ),
    ),
    mutant(
        "learners-next-lost",
        "who becomes a learner is forgotten when the joint configuration is left",
        "Raft §6",
        Edit(
            "raft/membership.py",
            "Configuration(joint.voters, joint.learners + joint.learners_next)",
            "Configuration(joint.voters, joint.learners_next)",
        ),
    ),
)
