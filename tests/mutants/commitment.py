"""Bugs of counting: what is committed, and by whom (Raft §5.3, §5.4.2, §6)."""

from tests.mutants.mutant import Edit, mutant

COMMITMENT = (
    mutant(
        "commits-old-term-by-counting",
        "entries of an earlier term are committed by counting",
        "row 6, Raft §5.4.2",
        Edit(
            "raft/commitment.py",
            "    if index <= state.commit_index or index < leading.term_start_index:\n",
            "    if index <= state.commit_index:\n",
        ),
    ),
    mutant(
        "own-disk-counted-early",
        "the leader counts itself before its own disk has it",
        "Thesis §10.2.1, row 14",
        Edit(
            "raft/commitment.py",
            "            state.log.persisted_index if member_id",
            "            state.log.last_index if member_id",
        ),
    ),
    mutant(
        "half-is-a-majority",
        "of an even number of voters half is enough",
        "Raft §5.2",
        Edit(
            "raft/quorum.py",
            "positions[(len(positions) - 1) // 2]",
            "positions[len(positions) // 2]",
        ),
        seed=0,
    ),
    mutant(
        "applied-before-durable-here",
        "what is committed is applied before this node has it on its own disk",
        "row 18",
        Edit(
            "raft/outputs.py",
            "    last_index = min(state.commit_index, state.log.persisted_index)\n    first_index",
            "    last_index = state.commit_index\n    first_index",
        ),
    ),
    mutant(
        "learner-counted",
        "learners count for majorities",
        "Thesis §4.2.1",
        Edit(
            "raft/quorum.py",
            "            tuple(member.member_id for member in configuration.voters),\n",
            "            tuple(member.member_id for member in configuration.voters + configuration.learners),\n",
        ),
        seed=4,
    ),
    mutant(
        "joint-by-new-majority-only",
        "while a configuration is joint the new majority decides alone",
        "Raft §6",
        Edit(
            "raft/quorum.py",
            "            position = min(position, _agreed_by(self.outgoing, position_of))\n",
            "            position = max(position, 0)\n",
        ),
    ),
    mutant(
        "joint-by-either-majority",
        "while a configuration is joint either majority is enough",
        "Raft §6",
        Edit(
            "raft/quorum.py",
            "position = min(position, _agreed_by(self.outgoing, position_of))",
            "position = max(position, _agreed_by(self.outgoing, position_of))",
        ),
    ),
    mutant(
        "removed-still-counted",
        "the voters are taken anew only when somebody was added",
        "row 3, etcd-io/raft#77",
        Edit(
            "raft/state.py",
            "        self.voters = Voters.of(self.configurations.current)\n"
            "        self.is_voter = self.member_id in self.voters.all\n"
            "        self.configuration_changed",
            "        voters = Voters.of(self.configurations.current)\n"
            "        if not set(voters.all) <= set(self.voters.all):\n"
            "            self.voters = voters\n"
            "        self.is_voter = self.member_id in self.voters.all\n"
            "        self.configuration_changed",
        ),
        Edit(
            "raft/commitment.py",
            "else leading.peers[member_id].match_index\n",
            "else leading.peers[member_id].match_index if member_id in leading.peers else 0\n",
        ),
        Edit(
            "raft/election.py",
            "leading.peers[member_id].is_recently_active\n",
            "member_id in leading.peers and leading.peers[member_id].is_recently_active\n",
        ),
        Edit(
            "raft/reads.py",
            "else leading.peers[member_id].round_acknowledged\n",
            "else leading.peers[member_id].round_acknowledged if member_id in leading.peers else 0\n",
        ),
    ),
)
