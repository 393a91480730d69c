"""Bugs of applying, of flushing, and of snapshots (Raft §7)."""

from tests.mutants.mutant import Edit, mutant

STATES = (
    mutant(
        "position-apart-from-data",
        "the applied index is written at a flush, not with the data",
        "row 18, etcd#13766",
        Edit(
            "kv/machine.py",
            "        batch.put(POSITION_KEY, encode_position(position))\n",
            "",
        ),
        Edit(
            "kv/machine.py",
            "        self._store.flush()\n",
            "        batch = self._store.new_batch()\n"
            "        batch.put(POSITION_KEY, encode_position(self._position))\n"
            "        self._store.write(batch)\n"
            "        self._store.flush()\n",
        ),
        seed=1,
    ),
    mutant(
        "last-entry-applied-twice",
        "after a restart the last applied entry is given out again, and nobody notices",
        "row 18",
        Edit(
            "runtime/replica.py",
            "random.Random(seed), machine.last_applied\n",
            "random.Random(seed), max(machine.last_applied - 1, 0)\n",
        ),
        Edit(
            "kv/machine.py",
            "            require(entry.index == expected,",
            "            require(entry.index <= expected,",
        ),
    ),
    mutant(
        "prepared-entry-applied-anyway",
        "what was prepared is applied although another entry was committed in its place",
        "Raft §5.3",
        Edit(
            "kv/machine.py",
            "if step is None or step.entries != entries:",
            "if step is None or len(step.entries) != len(entries):",
        ),
    ),
    mutant(
        "revision-depends-on-who-waits",
        "a delete of nothing takes a revision where its result is wanted",
        "row 20",
        Edit(
            "kv/step.py",
            "                    if wants_results:\n"
            "                        results.append(DeleteResult(revision, False))\n",
            "                    if wants_results:\n"
            "                        revision += 1\n"
            "                        results.append(DeleteResult(revision, False))\n",
        ),
        seed=0,
    ),
    mutant(
        "value-depends-on-batching",
        "a key that is written twice in one batch counts its versions from the state before",
        "row 20",
        Edit(
            "kv/step.py",
            "                put(CURRENT + key, record)\n                records[key] = record\n",
            "                put(CURRENT + key, record)\n",
        ),
    ),
    mutant(
        "sweep-takes-too-much",
        "a batch of changes is swept although its last revisions are still kept",
        "row 22",
        Edit(
            "kv/sweep.py",
            "            if revision + len(changes) - 1 > compact_revision:\n",
            "            if revision > compact_revision:\n",
        ),
    ),
    mutant(
        "applied-out-of-order",
        "what is wanted now overtakes what was deferred",
        "Raft §5.3",
        Edit(
            "runtime/applying.py",
            "        if not self._waiting and not self._is_held and self._is_wanted_now(entries):",
            "        if not self._is_held and self._is_wanted_now(entries):",
        ),
    ),
    mutant(
        "deferred-entries-dropped",
        "deferred entries that do not fit in one batch are forgotten",
        "Raft §5.3",
        Edit(
            "runtime/applying.py",
            "            if position > first and size_bytes + len(entry.data) > APPLY_MAX_BYTES:\n",
            "            if position > first and len(waiting) > 2:\n",
        ),
        Edit(
            "runtime/applying.py",
            "                first, size_bytes = position, 0\n",
            "                first, size_bytes = len(waiting) - 1, 0\n",
        ),
    ),
    mutant(
        "log-cut-before-flush",
        "the log is cut behind what is applied, not behind what is flushed",
        "row 18",
        Edit(
            "runtime/maintenance.py",
            "            await asyncio.to_thread(machine.flush)\n",
            "",
        ),
    ),
    mutant(
        "snapshot-without-configuration",
        "an installed snapshot leaves the old configuration in force",
        "row 13",
        Edit(
            "raft/snapshot.py",
            "    state.configurations.reset(snapshot)\n    state.adopt_configuration()\n",
            "",
        ),
    ),
    mutant(
        "snapshot-with-latest-configuration",
        "a snapshot carries the newest configuration, not the one of its index",
        "row 13, matrixone#24966",
        Edit(
            "raft/snapshot.py",
            "    configuration_index, configuration = state.configurations.at(last_index)\n",
            "    configuration = state.configuration\n"
            "    configuration_index = min(state.configuration_index, last_index)\n",
        ),
    ),
    mutant(
        "snapshot-over-newer-state",
        "a snapshot that is not ahead of the commit index is installed",
        "row 13, redisraft#17",
        Edit(
            "raft/snapshot.py",
            "    if snapshot.last_index <= state.commit_index:\n",
            "    if snapshot.last_index < 0:\n",
        ),
    ),
    mutant(
        "snapshot-keeps-a-foreign-log",
        "a snapshot leaves the log although its entry there is another one",
        "row 13, Raft §7",
        Edit(
            "raft/snapshot.py",
            "return snapshot.last_index <= state.log.last_index and state.log.term(snapshot.last_index) == "
            "snapshot.last_term",
            "return snapshot.last_index <= state.log.last_index",
        ),
    ),
    mutant(
        "snapshot-of-an-old-term",
        "a snapshot of a leader that was voted out is taken",
        "row 13, Raft figure 13",
        Edit(
            "raft/election.py",
            "    if isinstance(message, PreVote | PreVoteReply):\n",
            "    if isinstance(message, PreVote | PreVoteReply | InstallSnapshot):\n",
        ),
    ),
    mutant(
        "snapshot-match-claims-too-much",
        "a follower that needs no snapshot acknowledges its end, durable or not",
        "row 14",
        Edit(
            "raft/snapshot.py",
            "        match_index = min(match_index, state.log.persisted_index)\n",
            "        match_index = state.log.last_index\n",
        ),
    ),
)
