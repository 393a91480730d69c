"""Bugs of terms, votes and roles (Raft §5.2, §5.4.1)."""

from tests.mutants.mutant import Edit, mutant

ELECTIONS = (
    mutant(
        "vote-not-persisted",
        "the term is written, the vote in it is not",
        "row 4, Raft figure 2",
        Edit(
            "raft/outputs.py",
            "HardState(state.current_term, state.voted_for)",
            "HardState(state.current_term)",
        ),
        seed=0,
    ),
    mutant(
        "term-not-persisted",
        "a higher term that was heard is taken over in memory only",
        "row 4, Raft figure 2",
        Edit(
            "raft/election.py",
            "        state.set_term(term, NOBODY)\n",
            "        state.current_term, state.voted_for = term, NOBODY\n",
        ),
        seed=0,
    ),
    mutant(
        "answers-before-durable",
        "answers leave with the step that they rest on, not after it",
        "rows 4 and 14",
        Edit(
            "raft/outputs.py",
            "effects.messages_after_persist = replies",
            "state.messages.extend(replies)",
        ),
    ),
    mutant(
        "answers-overtake-a-write",
        "an answer leaves while an earlier step is still being written",
        "rows 4 and 14",
        Edit(
            "raft/outputs.py",
            "elif state.log.persisted_ticket < state.log.last_ticket:",
            "elif state.held:",
        ),
    ),
    mutant(
        "held-answers-let-go-early",
        "any report of durability lets go all that was held",
        "row 14",
        Edit(
            "raft/outputs.py",
            "state.held[0][0] <= persisted_ticket:",
            "state.held[0][0] <= state.log.last_ticket:",
        ),
    ),
    mutant(
        "vote-for-any-log",
        "a vote is given without a look at the candidate's log",
        "Raft §5.4.1",
        Edit(
            "raft/election.py",
            "granted = is_free and state.log.is_up_to_date(message.last_log_index, message.last_log_term)",
            "granted = is_free",
        ),
        Edit(
            "raft/election.py",
            "        and state.log.is_up_to_date(message.last_log_index, message.last_log_term)\n    )\n",
            "    )\n",
        ),
    ),
    mutant(
        "longer-log-wins",
        "logs are compared by length, not by last term",
        "Raft §5.4.1",
        Edit(
            "raft/log.py",
            "            return last_log_term > self.last_term\n",
            "            pass\n",
        ),
    ),
    mutant(
        "second-vote",
        "whoever asks gets a vote as long as no leader is known",
        "Raft §5.2",
        Edit(
            "raft/election.py",
            "state.voted_for == message.sender or (state.voted_for == NOBODY and state.leader == NOBODY)",
            "state.leader == NOBODY",
        ),
        Edit(
            "raft/invariants.py",
            'self._voted_for == NOBODY, "second',
            'True, "second',
        ),
    ),
    mutant(
        "pre-vote-counted-as-vote",
        "a candidate counts late grants of its pre-vote",
        "row 5",
        Edit(
            "raft/election.py",
            "if state.role is Role.PRE_CANDIDATE and message.requested_term == state.current_term + 1:",
            "if state.role in (Role.PRE_CANDIDATE, Role.CANDIDATE):",
        ),
    ),
    mutant(
        "pre-vote-changes-term",
        "the term of a pre-vote is taken over like any other",
        "row 5",
        Edit(
            "raft/election.py",
            "    if isinstance(message, PreVote):\n        return True\n    if isinstance(message, RequestVote):",
            "    if isinstance(message, RequestVote):",
        ),
    ),
    mutant(
        "own-vote-counted-early",
        "a candidate counts its own vote before it is durable",
        "row 14",
        Edit(
            "raft/election.py",
            "            state.replies.append(request)  # only once the vote for ourselves is durable\n",
            "            state.replies.append(request)\n"
            "    state.votes[state.member_id] = True\n"
            "    _count_votes(state)\n",
        ),
    ),
    mutant(
        "vote-asked-for-early",
        "votes are asked for before the new term is durable",
        "row 4",
        Edit(
            "raft/election.py",
            "state.replies.append(request)  # only once",
            "state.messages.append(request)  # only once",
        ),
    ),
    mutant(
        "no-op-left-out",
        "a new leader appends nothing of its own term",
        "Raft §8, row 8",
        Edit(
            "raft/election.py",
            "    state.append((Entry(index, state.current_term, EntryKind.NOOP),))\n",
            "",
        ),
    ),
    mutant(
        "leads-without-quorum",
        "check-quorum looks at the disk only",
        "Thesis §6.2",
        Edit(
            "raft/election.py",
            "and (is_stalled or not is_active):",
            "and is_stalled:",
        ),
    ),
    mutant(
        "leads-on-a-stalled-disk",
        "check-quorum looks at the followers only",
        "consul#22064",
        Edit(
            "raft/election.py",
            "and (is_stalled or not is_active):",
            "and not is_active:",
        ),
    ),
    mutant(
        "lower-term-not-answered",
        "a leader of a lower term is not told of the higher one",
        "Raft figure 2",
        Edit(
            "raft/election.py",
            "            state.replies.append(AppendEntriesReply(term, me, sender, False, 0, "
            "prev_log_index, 0, 0, 0))\n",
            "            del prev_log_index\n",
        ),
    ),
    mutant(
        "promise-forgotten",
        "a higher term heard by accident ends the promise that a lease rests on",
        "row 10, Thesis §6.4.1",
        Edit(
            "raft/election.py",
            "    if state.settings.lease_reads:\n",
            "    if not state.settings.lease_reads:\n",
        ),
    ),
    mutant(
        "promise-forgotten-at-restart",
        "a restarted member votes at once, though a leader may count on its promise",
        "row 10, Thesis §6.4.1",
        Edit(
            "raft/state.py",
            "settings.election_timeout_ticks if may_owe_lease else 0",
            "0 * may_owe_lease",
        ),
    ),
)
