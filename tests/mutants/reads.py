"""Bugs of linearizable, lease and local reads (Thesis §6.4)."""

from tests.mutants.mutant import Edit, mutant

READS = (
    mutant(
        "read-without-confirmation",
        "a leader answers from its commit index without asking anybody",
        "row 9, Thesis §6.4",
        Edit(
            "raft/reads.py",
            "        if lease and has_lease(state, leading):\n",
            "        if state.commit_index >= leading.term_start_index:\n",
        ),
    ),
    mutant(
        "read-round-used-twice",
        "a new read joins a round that is out already: its answers may be older than the read",
        "row 9, etcd#20418",
        Edit(
            "raft/reads.py",
            "    leading.read_round += 1\n",
            "    leading.read_round += not leading.rounds\n",
        ),
        seed=0,
    ),
    mutant(
        "read-before-first-commit",
        "a new leader confirms reads before it knows the commit index",
        "row 8, etcd#7331",
        Edit(
            "raft/reads.py",
            "    if not leading.gathered_reads or state.commit_index < leading.term_start_index:\n",
            "    if not leading.gathered_reads:\n",
        ),
        seed=0,
    ),
    mutant(
        "read-confirmed-by-one",
        "one answer confirms a round",
        "row 9",
        Edit(
            "raft/reads.py",
            "    confirmed = state.voters.agreed_position(\n",
            "    confirmed = max(map(\n",
        ),
        Edit(
            "raft/reads.py",
            "            leading.read_round if member_id == state.member_id else "
            "leading.peers[member_id].round_acknowledged\n"
            "        )\n"
            "    )\n",
            "            leading.peers[member_id].round_acknowledged\n"
            "        ), leading.peers), default=leading.read_round)\n",
        ),
    ),
    mutant(
        "lease-after-hand-over",
        "a leader that has told another to take over still reads by its lease",
        "row 10, openraft#1749",
        Edit(
            "raft/reads.py",
            "        and leading.transfer_target == NOBODY\n        and not leading.has_handed_over\n",
            "",
        ),
        Edit(
            "raft/transfer.py",
            "    leading.lease_until = 0\n",
            "",
        ),
    ),
    mutant(
        "lease-without-margin",
        "a lease is as long as the followers' promise",
        "row 10, Thesis §6.4.1",
        Edit(
            "raft/reads.py",
            "lease_ticks = settings.election_timeout_ticks - settings.lease_margin_ticks",
            "lease_ticks = settings.election_timeout_ticks",
        ),
    ),
    mutant(
        "lease-from-the-answer",
        "a lease begins when its round was confirmed, not when it was sent",
        "row 10, Thesis §6.4.1",
        Edit(
            "raft/reads.py",
            "done.sent_tick + lease_ticks",
            "state.now_ticks + lease_ticks",
        ),
    ),
    mutant(
        "lease-outlives-a-pause",
        "time is counted by how often the timer fired",
        "row 10, tikv#1593",
        Edit(
            "runtime/clock.py",
            "        ticks = int(elapsed_s / self._interval_s)\n",
            "        ticks = min(1, int(elapsed_s / self._interval_s))\n",
        ),
        Edit(
            "runtime/clock.py",
            "            self._last_s += ticks * self._interval_s\n",
            "            self._last_s = self.now()\n",
        ),
    ),
    mutant(
        "read-before-it-is-applied",
        "a confirmed read is answered by a state that lags behind its index",
        "Thesis §6.4",
        Edit(
            "runtime/clients/reads.py",
            "ready = [group for group in self._confirmed if group.read_index <= applied_index]",
            "ready = list(self._confirmed)",
        ),
    ),
    mutant(
        "refusal-taken-for-a-read-index",
        "a leader's refusal confirms a follower's read",
        "row 9",
        Edit(
            "raft/reads.py",
            "    if message.success:\n",
            "    if message.sender:\n",
        ),
    ),
    mutant(
        "local-reads-at-once",
        "a restarted node answers from its state before it has caught up",
        "row 25, read your writes",
        Edit(
            "runtime/clients/gate.py",
            "        self.state = GateState.CLOSED\n",
            "        self.state = GateState.OPEN\n",
        ),
    ),
    mutant(
        "local-reads-after-a-pause",
        "a node that slept answers from its state as if nothing had happened",
        "row 10, tikv#1593",
        Edit(
            "runtime/replica.py",
            'extra={"seconds": round(elapsed_s, 3)})\n        self.gate.close()\n',
            'extra={"seconds": round(elapsed_s, 3)})\n',
        ),
    ),
    mutant(
        "local-reads-by-an-old-answer",
        "an answer to a question from before the pause opens the gate",
        "row 9",
        Edit(
            "runtime/clients/gate.py",
            "        if question != self._question:\n            return\n",
            "",
        ),
    ),
)
