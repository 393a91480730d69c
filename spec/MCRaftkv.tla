------------------------------ MODULE MCRaftkv ------------------------------
(* What TLC needs to check Raftkv within bounds: symmetry, a view, and schedules that leave steps out. *)
EXTENDS Raftkv, TLC

CONSTANTS
    Newcomers,      \* servers that are in no configuration at first
    MaxDirty,       \* how many servers may have something to write at a time
    MaxCampaigns,
    MaxCommands,
    MaxChanges

\* Founders are alike, and so are newcomers.
Symmetry == Permutations(InitialVoters) \cup Permutations(Newcomers)
ToNewcomers == {Newcomers}
ToAllButOne == {(InitialVoters \cup Newcomers) \ {s} : s \in InitialVoters}
NoTargets == {}
NoError == {}

(* Of a term that every disk has left behind nothing can be heard any more, and nothing can be sent. *)
IsOver(t) == \A s \in Server : disk[s].term > t
LiveNetwork == {m \in network : ~IsOver(m.term)}
LiveTerms == {t \in Terms : ~IsOver(t)}
View ==
    <<memory, disk, writing, held, LiveNetwork, [t \in LiveTerms |-> <<ledger[t], told[t], acks[t], elected[t]>>],
      {m \in snapshots : ~IsOver(m.term)}, decided, crashes>>

IsDirty(s) == disk[s] # Image(s) \/ held[s] # {}
Count(l, kind) == Cardinality({i \in 1..Len(l) : l[i].kind = kind})

\* A bound on what is proposed, not on what follows from it.
Bounds ==
    /\ Cardinality({m \in network \cup UNION {held[s] : s \in Server} : m.type = "request"}) <= MaxCampaigns
    /\ \A s \in Server :
        /\ Count(log[s], "command") <= MaxCommands
        /\ Cardinality({i \in 1..Len(log[s]) : log[s][i].kind = "config" /\ log[s][i].config.old # {}}) <= MaxChanges

\* When more servers than that have something to write, one of them writes it before anything else happens.  What the
\* others have is then not lost in a crash; that it is sent later shows as messages that take longer.
FewAreDirty ==
    \/ Cardinality({s \in Server : IsDirty(s)}) <= MaxDirty
    \/ \E s \in Server : IsDirty(s) /\ disk'[s] = Image(s) /\ held'[s] = {} /\ memory' = memory /\ crashes' = crashes
=============================================================================
