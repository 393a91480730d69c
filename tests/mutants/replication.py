"""Bugs of sending and receiving entries (Raft §5.3)."""

from tests.mutants.mutant import Edit, mutant

REPLICATION = (
    mutant(
        "match-is-own-last-index",
        "a follower acknowledges all of its log, also what this message did not verify",
        "row 7, PySyncObj#166",
        Edit(
            "raft/follower.py",
            "min(verified_index, state.log.persisted_index)",
            "state.log.persisted_index",
        ),
    ),
    mutant(
        "acknowledges-what-is-being-written",
        "a message that brings nothing new is answered with entries that are not durable yet",
        "row 14",
        Edit(
            "raft/follower.py",
            "min(verified_index, state.log.persisted_index)",
            "verified_index",
        ),
        seed=1,
    ),
    mutant(
        "matching-suffix-truncated",
        "a short message cuts off what the log has behind it",
        "row 7, hashicorp/raft#113",
        Edit(
            "raft/follower.py",
            "    return False\n\n\ndef _success(",
            "    if log.last_index > entries[-1].index >= state.commit_index:\n"
            "        state.truncate_from(entries[-1].index + 1)\n"
            "    return False\n"
            "\n"
            "\n"
            "def _success(",
        ),
    ),
    mutant(
        "commits-what-was-not-verified",
        "a follower commits up to the leader's index, whatever its own entries there are",
        "row 7, Raft figure 2",
        Edit(
            "raft/follower.py",
            "min(message.leader_commit, verified_index)",
            "min(message.leader_commit, state.log.last_index)",
        ),
    ),
    mutant(
        "commit-index-goes-back",
        "an old message takes the commit index back",
        "row 7",
        Edit(
            "raft/follower.py",
            "state.commit_index = max(state.commit_index, commit_index)",
            "state.commit_index = commit_index",
        ),
        seed=0,
    ),
    mutant(
        "previous-term-not-compared",
        "the consistency check asks only whether there is an entry",
        "Raft §5.3",
        Edit(
            "raft/follower.py",
            "return index < log.base_index or log.term(index) == message.prev_log_term",
            "return True",
        ),
    ),
    mutant(
        "conflict-overwrites-nothing",
        "entries that differ from what the log has are taken for the same",
        "Raft §5.3",
        Edit(
            "raft/follower.py",
            "        if log.term(entry.index) != entry.term:\n",
            "        if log.term(entry.index) > entry.term:\n",
        ),
    ),
    mutant(
        "stale-reply-accepted",
        "answers of an earlier term count",
        "row 7",
        Edit(
            "raft/election.py",
            "    if isinstance(message, PreVote | PreVoteReply):\n",
            "    if isinstance(message, PreVote | PreVoteReply | AppendEntriesReply):\n",
        ),
    ),
    mutant(
        "window-overrun",
        "the number of messages in flight is not bounded",
        "Thesis §10.2.2",
        Edit(
            "raft/replication.py",
            "        and len(peer.inflight) < settings.inflight_max_count\n",
            "",
        ),
    ),
    mutant(
        "message-without-limit",
        "a message takes entries until the end of the log",
        "Thesis §10.2.2",
        Edit(
            "raft/log.py",
            "if size_bytes > max_bytes and position > offset:",
            "if size_bytes < 0 and position > offset:",
        ),
    ),
    mutant(
        "probes-one-place-for-ever",
        "a refusal does not move the leader back",
        "Raft §5.3",
        Edit(
            "raft/acknowledgement.py",
            "peer.become_probe(min(hint_index + 1, refused_index))",
            "peer.become_probe(refused_index + 1)",
        ),
    ),
    mutant(
        "step-claims-what-was-truncated",
        "a write that is under way is reported for entries that took the place of its own",
        "row 7",
        Edit(
            "raft/log.py",
            "        for step in self._steps:\n            step.last_index = min(step.last_index, index)\n",
            "",
        ),
    ),
    mutant(
        "refusal-taken-for-success",
        "an answer without success moves the match index to what was asked",
        "Raft §5.3",
        Edit(
            "raft/acknowledgement.py",
            "        _note_refusal(state, peer, message)\n",
            "        note_match(state, leading, peer, message.hint_index)\n",
        ),
    ),
)
