----------------------------- MODULE TraceRaftkv -----------------------------
(***************************************************************************)
(* Is what the simulator recorded a behaviour of Raftkv?  `TraceData` is    *)
(* written by src/raftkv/sim/recorder.py: one record for each action, with *)
(* its arguments and what its server looked like afterwards.  The trace is *)
(* one iff TLC finds the "violation" of TraceIsNotOver; else the depth that *)
(* it reached is the number of the record that no action explains.         *)
(***************************************************************************)
EXTENDS Raftkv, TraceData

VARIABLE next  \* the record that comes next

Step == Trace[next]
S == Step.server
Request(type) == [type |-> type, term |-> Step.term, candidate |-> Step.candidate,
                  lastIndex |-> Step.lastIndex, lastTerm |-> Step.lastTerm]
Is(name) == Step.name = name

IsStretch(term, prev, prevTerm, terms, commit) ==
    /\ CanSay(term, prev, Len(terms), commit)
    /\ TermAt(ledger[term].log, prev) = prevTerm
    /\ \A i \in 1..Len(terms) : ledger[term].log[prev + i].term = terms[i]

\* Of a message that left: it may have.
MayHaveBeenSent ==
    CASE Is("sentRequest") -> Request("request") \in network /\ S = Step.candidate
      [] Is("sentVote") ->
            [type |-> "grant", term |-> Step.term, voter |-> S, candidate |-> Step.candidate] \in network
      [] Is("sentPreVote") ->
            [type |-> "pregrant", term |-> Step.term, voter |-> S, candidate |-> Step.candidate] \in network
      [] Is("sentAppend") -> /\ ledger[Step.term].owner = S
                             /\ IsStretch(Step.term, Step.prev, Step.prevTerm, Step.terms, Step.commit)
      [] Is("sentMatch") -> acks[Step.term][S] >= Step.index

Explained ==
    CASE Is("restart") ->
            \E image \in CrashImages(S) :
                /\ image.term = Step.after.term /\ image.vote = Step.after.vote
                /\ Step.after.commit \in image.base.index..LargestApplied(S, image)
                /\ Restart(S, image, Step.after.commit)
      [] Is("term") -> ObserveTerm(S, Step.term)
      [] Is("stepDown") -> StepDown(S)
      [] Is("preCandidate") -> BecomePreCandidate(S)
      [] Is("candidate") -> BecomeCandidate(S)
      [] Is("leader") -> BecomeLeader(S)
      [] Is("preVote") -> Request("prevote") \in network /\ HandlePreVote(S, Request("prevote"))
      [] Is("vote") -> Request("request") \in network /\ GrantVote(S, Request("request"))
      [] Is("handOver") -> HandOver(S, Step.term, Step.heir)
      [] Is("command") -> Propose(S)
      [] Is("config") -> /\ \/ Step.old = {} /\ Config(S).old # {} /\ LeaveJoint(S)
                            \/ ProposeChange(S, Step.new)
                         /\ log'[S][Len(log'[S])].config = [new |-> Step.new, old |-> Step.old]
      [] Is("commit") -> AdvanceCommit(S, Step.index)
      [] Is("append") -> /\ IsStretch(Step.term, Step.prev, Step.prevTerm, Step.terms, Step.commit)
                         /\ AppendEntries(S, Step.term, Step.prev, Len(Step.terms), Step.commit)
      [] Is("handOut") -> HandOut(S)
      [] Is("durable") -> Durable(S)
      \* A crash may bring back what was cut from a log, and then it is cut again; Raftkv lets it stay away.
      [] Is("compact") -> IF Step.index <= base[S].index THEN UNCHANGED vars ELSE Compact(S, Step.index)
      [] Is("snapshot") -> currentTerm[S] = Step.term /\ SendSnapshot(S, Step.index)
      [] Is("install") -> \E m \in snapshots :
                            /\ m.term = Step.term /\ m.index = Step.index /\ m.lastTerm = Step.lastTerm
                            /\ m.config = [new |-> Step.new, old |-> Step.old] /\ m.configIndex = Step.configIndex
                            /\ HandleSnapshot(S, m)
      [] Is("unknown") -> FALSE
      [] OTHER -> MayHaveBeenSent /\ UNCHANGED vars

\* The server is what the record says; its log is compared above what the code still has of it.
IsAsRecorded ==
    Step.isLast => LET after == Step.after
                   IN /\ currentTerm'[S] = after.term
                      /\ votedFor'[S] = after.vote
                      /\ role'[S] = after.role
                      /\ commitIndex'[S] = after.commit
                      /\ Len(log'[S]) = after.base + Len(after.terms)
                      /\ \A i \in 1..Len(after.terms) : log'[S][after.base + i].term = after.terms[i]

TraceInit == Init /\ next = 1
TraceNext == next <= Len(Trace) /\ Explained /\ IsAsRecorded /\ next' = next + 1
TraceSpec == TraceInit /\ [][TraceNext]_<<vars, next>>

TraceIsNotOver == next <= Len(Trace)
=============================================================================
