"""Bugs of outcomes: what clients are told about their writes (Thesis §6.3)."""

from tests.mutants.mutant import Edit, mutant

CLIENTS = (
    mutant(
        "adrift-reported-as-refused",
        "a proposal whose leader was voted out is reported as surely not applied",
        "row 21, hashicorp/raft#561",
        Edit(
            "runtime/clients/proposals.py",
            "        self._adrift += self._inflight.values()\n        self._inflight = {}\n",
            "        for batch in self._inflight.values():\n"
            "            self._finish(batch, _discarded())\n"
            "        self._inflight = {}\n",
        ),
        seed=1,
    ),
    mutant(
        "late-reported-as-refused",
        "a proposal that no majority answered in time is reported as surely not applied",
        "row 21, jetcd#1444",
        Edit(
            "runtime/clients/proposals.py",
            'self._finish(self._inflight.pop(index), _unknown("no majority answered in time"))',
            "self._finish(self._inflight.pop(index), _discarded())",
        ),
    ),
    mutant(
        "done-by-anothers-entry",
        "whatever is committed at a proposal's index answers it",
        "row 21",
        Edit(
            "runtime/clients/proposals.py",
            "        if batch.term != entry.term:\n",
            "        if len(batch.dones) != len(results):\n",
        ),
    ),
    mutant(
        "done-when-proposed",
        "a write is answered once the leader's own log has it",
        "Raft §5.3, row 14",
        Edit(
            "runtime/clients/proposals.py",
            "            has_proposed = True\n",
            "            has_proposed = True\n"
            "            if len(batch.dones) == 1:\n"
            "                from raftkv.kv import PutResult\n"
            "                batch.dones[0](PutResult(0, 0, 1))\n"
            "                batch.dones[0] = lambda outcome: None\n",
        ),
        seed=0,
    ),
    mutant(
        "forwarded-write-sent-again",
        "what another leader was sent is sent to the new one",
        "etcd#18424, row 21",
        Edit(
            "runtime/clients/forwarding.py",
            '            self._finish(self._sent.pop(request_id), _unknown("another leader was elected '
            'before this one answered"))\n',
            "            self._waiting.append(self._sent.pop(request_id))\n",
        ),
    ),
    mutant(
        "forwarded-taken-back-after-sending",
        "a node that comes to lead proposes what it had already forwarded",
        "etcd#18424",
        Edit(
            "runtime/clients/forwarding.py",
            "        waiting, self._waiting = self._waiting, []\n        self._bytes_count -= sum",
            "        waiting, self._waiting = [*self._sent.values(), *self._waiting], []\n"
            "        self._sent = {}\n"
            "        self._bytes_count -= sum",
        ),
        Edit(
            "runtime/replica.py",
            "            self.forwarding.leader_changed(leadership.leader)\n",
            "            if leadership.leader != self.own.member_id:\n"
            "                self.forwarding.leader_changed(leadership.leader)\n",
        ),
    ),
    mutant(
        "forwarded-unknown-becomes-refused",
        "the leader's word that an outcome is unknown is lost on the way",
        "row 21",
        Edit(
            "runtime/clients/forwarding.py",
            "    if failure.is_unknown:\n        return OutcomeUnknown(failure.message)\n",
            "",
        ),
    ),
    mutant(
        "forwarded-late-becomes-refused",
        "a forwarded write that was not answered in time is reported as surely not applied",
        "row 21",
        Edit(
            "runtime/clients/forwarding.py",
            '_unknown("the leader did not answer in time")',
            'Overloaded("the leader did not answer in time")',
        ),
    ),
    mutant(
        "own-write-unseen",
        "a follower answers a forwarded write before it has applied it itself",
        "nats-server#6557",
        Edit(
            "runtime/clients/forwarding.py",
            "self._answered.append(_Answered(reply.index, batch))",
            "self._answered.append(_Answered(0, batch))",
        ),
    ),
    mutant(
        "unreachable-means-refused",
        "a broken connection is taken for a write that never arrived",
        "row 21",
        Edit(
            "runtime/clients/forwarding.py",
            '_unknown("the connection to the leader was lost")',
            'NoLeader("the connection to the leader was lost")',
        ),
    ),
)
