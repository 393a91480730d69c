------------------------------- MODULE Raftkv -------------------------------
(***************************************************************************)
(* The consensus core of raftkv as it is built: what src/raftkv/raft       *)
(* decides, what its driver may have made durable, and a network that      *)
(* loses, doubles and reorders.  Names are those of the code.              *)
(*                                                                         *)
(* Time is left out: whatever a timer or a lease may delay or refuse may   *)
(* happen here at any moment or never.  So this allows more than the code  *)
(* does; what holds here for every behaviour holds for the code's.         *)
(*                                                                         *)
(* The network is everything that was ever sent, since any message may     *)
(* arrive late, twice or never.  It is kept in short form:                 *)
(*   network   requests for votes and pre-votes, granted votes and         *)
(*             pre-votes, hand-overs.  Refusals only tell a term, see      *)
(*             ObserveTerm.                                                *)
(*   ledger    for each term, the log of its leader: every AppendEntries   *)
(*             of that leader is a stretch of it.                          *)
(*   told      for each term, the newest commit index its leader told.     *)
(*   acks      for each term and server, the largest match_index that the  *)
(*             server claimed; what else it claimed is implied.            *)
(*   snapshots every InstallSnapshot.                                      *)
(*                                                                         *)
(* A log is kept whole, also below its base, so that the invariants can    *)
(* speak of it; the actions look only at the base and above it.            *)
(***************************************************************************)
EXTENDS Integers, Sequences, FiniteSets

CONSTANTS
    Server,         \* all servers, members or not yet
    InitialVoters,  \* the founding configuration
    Nil,            \* no server
    Targets,        \* sets of voters that may be asked for
    MaxTerm,        \* bounds of the model, not of the code
    MaxLog,
    MaxCrashes,
    MaxWriting,     \* steps on their way to the disk; 0: see Persist
    HasPreVote,     \* false: a server campaigns whenever it likes, which covers hand-overs and pre-votes
    HasCompaction,  \* false: no snapshots
    HasTornWrites,  \* a crash may leave half a step on the disk
    HasEveryAppend, \* false: an AppendEntries always brings all that its leader has and knows
    HasStepDown,    \* a role may be lost, or a term taken over, with no other effect (check-quorum, lost votes, refusals)
    Planted         \* the errors planted in this model; {} is the code as built

VARIABLES
    currentTerm, votedFor, role, log, commitIndex, base,  \* a server's memory
    disk,       \* what of it is durable, and known to be
    writing,    \* steps handed to the disk: what will be durable, and what may be sent then
    held,       \* answers that wait for a step which was not handed out yet
    network, ledger, told, acks, snapshots,
    elected,    \* how often each term was won
    decided,    \* every entry that a leader called committed, with the term of the first that did
    crashes

memory == <<currentTerm, votedFor, role, log, commitIndex, base>>
sent == <<network, ledger, told, acks, snapshots>>
history == <<elected, decided, crashes>>
vars == <<memory, disk, writing, held, sent, history>>

Terms == 1..MaxTerm
Min(a, b) == IF a < b THEN a ELSE b
Max(a, b) == IF a > b THEN a ELSE b
Largest(S) == CHOOSE x \in S : \A y \in S : x >= y
Smallest(S) == CHOOSE x \in S : \A y \in S : x <= y

-----------------------------------------------------------------------------
(* Entries, logs, configurations *)

NoVoters == [new |-> {}, old |-> {}]
Entry(term, kind, config) == [term |-> term, kind |-> kind, config |-> config]
TermAt(l, i) == IF i = 0 THEN 0 ELSE l[i].term
LastTerm(l) == TermAt(l, Len(l))

\* Is log a at least as up to date as log b? (Raft 5.4.1)
IsUpToDate(lastIndex, lastTerm, l) ==
    lastTerm > LastTerm(l) \/ (lastTerm = LastTerm(l) /\ lastIndex >= Len(l))

\* The latest configuration at or below an index: from the log above the base, else the base's own (Raft 6).
ConfigAt(l, b, upto) ==
    LET found == {i \in (b.index + 1)..upto : l[i].kind = "config"}
    IN IF found = {} THEN [index |-> b.configIndex, config |-> b.config]
       ELSE LET i == Largest(found) IN [index |-> i, config |-> l[i].config]
InForce(s) == ConfigAt(log[s], base[s], Len(log[s]))
Config(s) == InForce(s).config

IsMajority(Q, voters) == 2 * Cardinality(Q \cap voters) > Cardinality(voters)
IsQuorum(Q, config) ==
    /\ IsMajority(Q, config.new)
    /\ config.old = {} \/ "one-majority" \in Planted \/ IsMajority(Q, config.old)

\* A voter, or one whose removal is not known to be committed (Thesis 4.2.2).
CanCampaign(s) ==
    LET now == InForce(s)
        before == ConfigAt(log[s], base[s], now.index - 1).config
    IN \/ s \in now.config.new \cup now.config.old
       \/ now.index > commitIndex[s] /\ now.index > base[s].index /\ s \in before.new \cup before.old

InitialBase == [index |-> 0, config |-> [new |-> InitialVoters, old |-> {}], configIndex |-> 0]
EmptyImage == [term |-> 0, vote |-> Nil, log |-> <<>>, base |-> InitialBase]
NoLedger == [owner |-> Nil, from |-> 0, log |-> <<>>]

-----------------------------------------------------------------------------
(* Durability.  An image is what a disk holds.  Memory runs ahead of it; what is known to be durable of a log is where *)
(* log and disk agree (the code counts tickets, and a truncation lowers what they stand for).                         *)

Image(s) == [term |-> currentTerm[s], vote |-> votedFor[s], log |-> log[s], base |-> base[s]]

Agreement(a, b) ==
    LET shorter == Min(Len(a), Len(b))
        differ == {i \in 1..shorter : a[i] # b[i]}
    IN IF differ = {} THEN shorter ELSE Smallest(differ) - 1

Persisted(s) ==
    IF "durable-by-index" \in Planted THEN Min(Len(disk[s].log), Len(log[s])) ELSE Agreement(disk[s].log, log[s])
IsHardStateDurable(s) == disk[s].term = currentTerm[s] /\ disk[s].vote = votedFor[s]

Sent(messages) == network \cup {m \in messages : m.type # "ack"}
Acked(s, messages) ==
    [t \in Terms |-> [acks[t] EXCEPT ![s] =
        Largest({@} \cup {m.match : m \in {m \in messages : m.type = "ack" /\ m.term = t}})]]

\* An answer leaves when all that was decided before it is durable: now, with a step under way, or with the next one.
\* `image` is what memory will be.
Answer(s, image, messages) ==
    IF disk[s] = image /\ writing[s] = <<>>
    THEN /\ network' = Sent(messages)
         /\ acks' = Acked(s, messages)
         /\ UNCHANGED <<held, writing>>
    ELSE /\ IF writing[s] # <<>> /\ writing[s][Len(writing[s])].image = image
            THEN /\ writing' = [writing EXCEPT ![s][Len(writing[s])].messages = @ \cup messages]
                 /\ UNCHANGED held
            ELSE /\ held' = [held EXCEPT ![s] = @ \cup messages]
                 /\ UNCHANGED writing
         /\ UNCHANGED <<network, acks>>

\* An answer that claims nothing that is not durable leaves at once.
AnswerAtOnce(s, messages) ==
    /\ network' = Sent(messages)
    /\ acks' = Acked(s, messages)
    /\ UNCHANGED <<held, writing>>

HasUnwritten(s) ==
    held[s] # {} \/ Image(s) # IF writing[s] = <<>> THEN disk[s] ELSE writing[s][Len(writing[s])].image

HandOut(s) ==
    /\ Len(writing[s]) < MaxWriting
    /\ writing' = [writing EXCEPT ![s] = Append(@, [image |-> Image(s), messages |-> held[s]])]
    /\ held' = [held EXCEPT ![s] = {}]
    /\ UNCHANGED <<memory, disk, sent, history>>

\* The oldest step is durable, and reported: what waited for it is sent.
Durable(s) ==
    /\ writing[s] # <<>>
    /\ disk' = [disk EXCEPT ![s] = [Head(writing[s]).image EXCEPT !.base =
                    IF @.index < disk[s].base.index THEN disk[s].base ELSE @]]
    /\ network' = Sent(Head(writing[s]).messages)
    /\ acks' = Acked(s, Head(writing[s]).messages)
    /\ writing' = [writing EXCEPT ![s] = Tail(@)]
    /\ UNCHANGED <<memory, held, ledger, told, snapshots, history>>

\* Both at once.  Enough for the invariants: a step that is reported late could as well have been reported before what
\* happened meanwhile, with its messages on their way for longer.  A model with MaxWriting > 0 checks that.
Persist(s) ==
    /\ MaxWriting = 0
    /\ disk[s] # Image(s) \/ held[s] # {}
    /\ disk' = [disk EXCEPT ![s] = Image(s)]
    /\ network' = Sent(held[s])
    /\ acks' = Acked(s, held[s])
    /\ held' = [held EXCEPT ![s] = {}]
    /\ UNCHANGED <<memory, writing, ledger, told, snapshots, history>>

\* What a crash may leave when the disk was on its way from one image to the next.  A snapshot is all or nothing.
Between(old, new) ==
    {old, new} \cup
    IF ~HasTornWrites \/ new.base.index > old.base.index THEN {}
    ELSE {[new EXCEPT !.log = old.log]} \cup
         {[new EXCEPT !.log = SubSeq(@, 1, n)] : n \in Agreement(old.log, new.log)..Len(new.log)}

CrashImages(s) ==
    IF MaxWriting = 0 THEN Between(disk[s], Image(s))
    ELSE LET steps == <<disk[s]>> \o [i \in 1..Len(writing[s]) |-> writing[s][i].image]
         IN {disk[s]} \cup UNION {Between(steps[i], steps[i + 1]) : i \in 1..(Len(steps) - 1)}

\* A process ends and another one begins with what is on the disk.  What the state machine holds durably was committed
\* and durable; it may be older (its writes are not synced), but not older than the log's base.
Restart(s, image, applied) ==
    /\ crashes < MaxCrashes
    /\ crashes' = crashes + 1
    /\ disk' = [disk EXCEPT ![s] = image]
    /\ currentTerm' = [currentTerm EXCEPT ![s] = image.term]
    /\ votedFor' = [votedFor EXCEPT ![s] = image.vote]
    /\ role' = [role EXCEPT ![s] = "follower"]
    /\ log' = [log EXCEPT ![s] = image.log]
    /\ base' = [base EXCEPT ![s] = image.base]
    /\ commitIndex' = [commitIndex EXCEPT ![s] = applied]
    /\ held' = [held EXCEPT ![s] = {}]
    /\ writing' = [writing EXCEPT ![s] = <<>>]
    /\ UNCHANGED <<sent, elected, decided>>

LargestApplied(s, image) == Max(image.base.index, Min(commitIndex[s], Min(Persisted(s), Len(image.log))))

-----------------------------------------------------------------------------
(* Elections (Raft 5.2, 5.4.1; pre-vote Thesis 9.6) *)

Follow(s, term) ==
    /\ currentTerm' = [currentTerm EXCEPT ![s] = term]
    /\ votedFor' = [votedFor EXCEPT ![s] = IF term > currentTerm[s] THEN Nil ELSE @]
    /\ role' = [role EXCEPT ![s] = "follower"]

\* Every message tells its sender's term, which is durable there.
ObserveTerm(s, term) ==
    /\ term > currentTerm[s]
    /\ \E x \in Server : disk[x].term >= term
    /\ Follow(s, term)
    /\ UNCHANGED <<log, commitIndex, base, disk, writing, held, sent, history>>

StepDown(s) ==
    /\ role[s] # "follower"
    /\ Follow(s, currentTerm[s])
    /\ UNCHANGED <<log, commitIndex, base, disk, writing, held, sent, history>>

BecomePreCandidate(s) ==
    /\ HasPreVote
    /\ role[s] # "leader"
    /\ ~(role[s] = "candidate" /\ ~IsHardStateDurable(s))
    /\ CanCampaign(s)
    /\ currentTerm[s] < MaxTerm
    /\ role' = [role EXCEPT ![s] = "pre-candidate"]
    /\ network' = Sent({[type |-> "prevote", term |-> currentTerm[s] + 1, candidate |-> s,
                         lastIndex |-> Len(log[s]), lastTerm |-> LastTerm(log[s])]})
    /\ UNCHANGED <<currentTerm, votedFor, log, commitIndex, base, disk, writing, held, ledger, told, acks, snapshots,
                   history>>

\* Changes neither term nor vote.
HandlePreVote(s, m) ==
    /\ m.type = "prevote" /\ m.candidate # s
    /\ m.term > currentTerm[s]
    /\ IsUpToDate(m.lastIndex, m.lastTerm, log[s])
    /\ Answer(s, Image(s), {[type |-> "pregrant", term |-> m.term, voter |-> s, candidate |-> m.candidate]})
    /\ UNCHANGED <<memory, disk, ledger, told, snapshots, history>>

MayCampaign(s) ==
    LET would == {s} \cup {m.voter : m \in {m \in network :
                     m.type = "pregrant" /\ m.term = currentTerm[s] + 1 /\ m.candidate = s}}
    IN \/ ~HasPreVote
       \/ role[s] = "pre-candidate" /\ IsQuorum(would, Config(s))
       \/ [type |-> "handover", term |-> currentTerm[s], to |-> s] \in network

\* Requests leave, and the vote for itself counts, only once that vote is durable.
BecomeCandidate(s) ==
    /\ role[s] # "leader"
    /\ ~(role[s] = "candidate" /\ ~IsHardStateDurable(s))
    /\ CanCampaign(s)
    /\ MayCampaign(s)
    /\ currentTerm[s] < MaxTerm
    /\ LET term == currentTerm[s] + 1
           request == [type |-> "request", term |-> term, candidate |-> s,
                       lastIndex |-> Len(log[s]), lastTerm |-> LastTerm(log[s])]
           grant == [type |-> "grant", term |-> term, voter |-> s, candidate |-> s]
       IN /\ currentTerm' = [currentTerm EXCEPT ![s] = term]
          /\ votedFor' = [votedFor EXCEPT ![s] = s]
          /\ role' = [role EXCEPT ![s] = "candidate"]
          /\ IF "own-vote-at-once" \in Planted
             THEN AnswerAtOnce(s, {request, grant})
             ELSE held' = [held EXCEPT ![s] = @ \cup {request, grant}] /\ UNCHANGED <<network, acks, writing>>
    /\ UNCHANGED <<log, commitIndex, base, disk, ledger, told, snapshots, history>>

\* One vote a term, to a log at least as up to date as its own, whatever the configuration.
GrantVote(s, m) ==
    /\ m.type = "request" /\ m.candidate # s
    /\ m.term >= currentTerm[s]
    /\ LET isNews == m.term > currentTerm[s]
           grant == [type |-> "grant", term |-> m.term, voter |-> s, candidate |-> m.candidate]
           image == [Image(s) EXCEPT !.term = m.term, !.vote = m.candidate]
       IN /\ isNews \/ votedFor[s] \in {Nil, m.candidate}
          /\ "no-log-check" \in Planted \/ IsUpToDate(m.lastIndex, m.lastTerm, log[s])
          /\ currentTerm' = [currentTerm EXCEPT ![s] = m.term]
          /\ votedFor' = [votedFor EXCEPT ![s] = m.candidate]
          /\ role' = [role EXCEPT ![s] = IF isNews THEN "follower" ELSE @]
          /\ IF "vote-before-durable" \in Planted THEN AnswerAtOnce(s, {grant}) ELSE Answer(s, image, {grant})
    /\ UNCHANGED <<log, commitIndex, base, disk, ledger, told, snapshots, history>>

\* A no-op begins the term (Raft 5.4.2, 8).
BecomeLeader(s) ==
    /\ role[s] = "candidate"
    /\ Len(log[s]) < MaxLog
    /\ LET term == currentTerm[s]
           votes == {m.voter : m \in {m \in network : m.type = "grant" /\ m.term = term /\ m.candidate = s}}
           longer == Append(log[s], Entry(term, "noop", NoVoters))
       IN /\ IsQuorum(votes, Config(s))
          /\ log' = [log EXCEPT ![s] = longer]
          /\ ledger' = [ledger EXCEPT ![term] = [owner |-> s, from |-> base[s].index, log |-> longer]]
          /\ told' = [told EXCEPT ![term] = commitIndex[s]]
          /\ elected' = [elected EXCEPT ![term] = @ + 1]
    /\ role' = [role EXCEPT ![s] = "leader"]
    /\ UNCHANGED <<currentTerm, votedFor, commitIndex, base, disk, writing, held, network, acks, snapshots, decided,
                   crashes>>

\* Also as its last word, when it has just resigned.
HandOver(s, term, heir) ==
    /\ HasPreVote
    /\ ledger[term].owner = s /\ heir # s
    /\ network' = Sent({[type |-> "handover", term |-> term, to |-> heir]})
    /\ UNCHANGED <<memory, disk, writing, held, ledger, told, acks, snapshots, history>>

-----------------------------------------------------------------------------
(* The leader's log, and what is committed (Raft 5.3, 5.4.2; own disk in parallel: Thesis 10.2.1) *)

TermStart(s) == Smallest({i \in 1..Len(log[s]) : log[s][i].term = currentTerm[s]})

AppendOwn(s, kind, config) ==
    /\ role[s] = "leader"
    /\ Len(log[s]) < MaxLog
    /\ LET longer == Append(log[s], Entry(currentTerm[s], kind, config))
       IN /\ log' = [log EXCEPT ![s] = longer]
          /\ ledger' = [ledger EXCEPT ![currentTerm[s]].log = longer]
    /\ UNCHANGED <<currentTerm, votedFor, role, commitIndex, base, disk, writing, held, network, told, acks, snapshots,
                   history>>

Propose(s) == AppendOwn(s, "command", NoVoters)

\* Never before an entry of its own term is committed, nor while a change is not over.
ProposeChange(s, voters) ==
    /\ role[s] = "leader"
    /\ commitIndex[s] >= TermStart(s)
    /\ \/ "change-during-change" \in Planted
       \/ Config(s).old = {} /\ InForce(s).index <= commitIndex[s]
    /\ AppendOwn(s, "config",
         IF voters = Config(s).new \/ "no-joint" \in Planted
         THEN [new |-> voters, old |-> {}]
         ELSE [new |-> voters, old |-> Config(s).new])

LeaveJoint(s) ==
    /\ role[s] = "leader"
    /\ Config(s).old # {}
    /\ "leave-at-once" \in Planted \/ commitIndex[s] >= Max(InForce(s).index, TermStart(s))
    /\ AppendOwn(s, "config", [new |-> Config(s).new, old |-> {}])

Holds(s, x, index) ==
    IF x = s THEN "count-unwritten" \in Planted \/ Persisted(s) >= index ELSE acks[currentTerm[s]][x] >= index

AdvanceCommit(s, index) ==
    /\ role[s] = "leader"
    /\ index > commitIndex[s] /\ index <= Len(log[s])
    /\ "commit-old-term" \in Planted \/ log[s][index].term = currentTerm[s]
    /\ IsQuorum({x \in Server : Holds(s, x, index)}, Config(s))
    /\ commitIndex' = [commitIndex EXCEPT ![s] = index]
    /\ told' = [told EXCEPT ![currentTerm[s]] = index]
    /\ decided' = decided \cup
         {[index |-> i, term |-> log[s][i].term, at |-> currentTerm[s]] : i \in
            {i \in (commitIndex[s] + 1)..index : ~\E d \in decided : d.index = i /\ d.term = log[s][i].term}}
    /\ UNCHANGED <<currentTerm, votedFor, role, log, base, disk, writing, held, network, ledger, acks, snapshots,
                   elected, crashes>>

-----------------------------------------------------------------------------
(* The follower's log (Raft 5.3).  A message is (term, where it begins, how many entries, the leader's commit index). *)

CanSay(term, prev, count, commit) ==
    /\ ledger[term].owner # Nil
    /\ prev >= ledger[term].from
    /\ prev + count <= Len(ledger[term].log)
    /\ commit <= told[term]

AppendEntries(s, term, prev, count, commit) ==
    /\ term >= currentTerm[s]
    /\ CanSay(term, prev, count, commit)
    /\ ledger[term].owner # s
    /\ ~(role[s] = "leader" /\ term = currentTerm[s])
    /\ prev <= Len(log[s])
    /\ prev < base[s].index \/ TermAt(log[s], prev) = TermAt(ledger[term].log, prev)
    /\ LET theirs == ledger[term].log
           verified == prev + count
           new == {i \in (prev + 1)..verified : i >= base[s].index /\
                     (i > Len(log[s]) \/ TermAt(log[s], i) # TermAt(theirs, i))}
           first == IF "truncate-always" \in Planted THEN Max(prev, base[s].index) + 1 ELSE Smallest(new)
           isNews == new # {} \/ ("truncate-always" \in Planted /\ first <= verified /\ Len(log[s]) > verified)
           longer == IF isNews THEN SubSeq(log[s], 1, first - 1) \o SubSeq(theirs, first, verified) ELSE log[s]
           image == [Image(s) EXCEPT !.term = term, !.log = longer,
                                     !.vote = IF term > currentTerm[s] THEN Nil ELSE @]
           match == IF "claim-whole-log" \in Planted THEN Len(longer) ELSE verified
           ack(n) == [type |-> "ack", term |-> term, match |-> n]
           isDurable == disk[s].term = term /\ disk[s].vote = image.vote
       IN /\ Follow(s, term)
          /\ log' = [log EXCEPT ![s] = longer]
          /\ commitIndex' = [commitIndex EXCEPT ![s] = Max(@, Min(commit, verified))]
          /\ IF "ack-before-durable" \in Planted THEN AnswerAtOnce(s, {ack(match)})
             ELSE IF isNews \/ ~isDurable THEN Answer(s, image, {ack(match)})
             ELSE AnswerAtOnce(s, {ack(Min(match, Persisted(s)))})
    /\ UNCHANGED <<base, disk, ledger, told, snapshots, history>>

-----------------------------------------------------------------------------
(* Snapshots (Raft 7) *)

\* The log is cut where the state machine's own state is durable. Here the disk does it at once; the code may find
\* after a crash what it had cut, which says nothing new.
Compact(s, index) ==
    /\ index > base[s].index
    /\ index <= Min(commitIndex[s], Persisted(s))
    /\ LET now == ConfigAt(log[s], base[s], index)
           cut == [index |-> index, config |-> now.config, configIndex |-> now.index]
       IN /\ base' = [base EXCEPT ![s] = cut]
          /\ disk' = [disk EXCEPT ![s].base = cut]
          /\ writing' = [writing EXCEPT ![s] = [i \in 1..Len(@) |->
                           [@[i] EXCEPT !.image.base = IF @.index < index THEN cut ELSE @]]]
    /\ UNCHANGED <<currentTerm, votedFor, role, log, commitIndex, held, sent, history>>

SendSnapshot(s, index) ==
    /\ role[s] = "leader"
    /\ index >= base[s].index /\ index > 0
    /\ index <= Min(commitIndex[s], Persisted(s))
    /\ LET now == ConfigAt(log[s], base[s], index)
       IN snapshots' = snapshots \cup
            {[term |-> currentTerm[s], index |-> index, lastTerm |-> TermAt(log[s], index),
              config |-> now.config, configIndex |-> now.index, log |-> SubSeq(log[s], 1, index), sender |-> s]}
    /\ UNCHANGED <<memory, disk, writing, held, network, ledger, told, acks, history>>

HandleSnapshot(s, m) ==
    /\ m.term >= currentTerm[s]
    /\ m.sender # s
    /\ ~(role[s] = "leader" /\ m.term = currentTerm[s])
    /\ LET isOld == m.index <= commitIndex[s]
           isHeld == m.index <= Len(log[s]) /\ TermAt(log[s], m.index) = m.lastTerm
           restored == [index |-> m.index,
                        config |-> IF "snapshot-without-configuration" \in Planted THEN base[s].config ELSE m.config,
                        configIndex |-> m.configIndex]
           vote == IF m.term > currentTerm[s] THEN Nil ELSE votedFor[s]
           image == IF isOld \/ isHeld THEN [Image(s) EXCEPT !.term = m.term, !.vote = vote]
                    ELSE [term |-> m.term, vote |-> vote, log |-> m.log, base |-> restored]
           match == IF isOld THEN Min(m.index, Persisted(s)) ELSE m.index
       IN /\ Follow(s, m.term)
          /\ log' = [log EXCEPT ![s] = image.log]
          /\ base' = [base EXCEPT ![s] = image.base]
          /\ commitIndex' = [commitIndex EXCEPT ![s] = Max(@, m.index)]
          /\ Answer(s, image, {[type |-> "ack", term |-> m.term, match |-> match]})
    /\ UNCHANGED <<disk, ledger, told, snapshots, history>>

-----------------------------------------------------------------------------
Init ==
    /\ currentTerm = [s \in Server |-> 0]
    /\ votedFor = [s \in Server |-> Nil]
    /\ role = [s \in Server |-> "follower"]
    /\ log = [s \in Server |-> <<>>]
    /\ commitIndex = [s \in Server |-> 0]
    /\ base = [s \in Server |-> InitialBase]
    /\ disk = [s \in Server |-> EmptyImage]
    /\ writing = [s \in Server |-> <<>>]
    /\ held = [s \in Server |-> {}]
    /\ network = {}
    /\ ledger = [t \in Terms |-> NoLedger]
    /\ told = [t \in Terms |-> 0]
    /\ acks = [t \in Terms |-> [s \in Server |-> 0]]
    /\ snapshots = {}
    /\ elected = [t \in Terms |-> 0]
    /\ decided = {}
    /\ crashes = 0

Crash(s) ==
    \E image \in CrashImages(s) : \E applied \in image.base.index..LargestApplied(s, image) : Restart(s, image, applied)

\* Of AppendEntries that end alike, the one that begins first does all that the others would: if it is refused, so are
\* they. So only that one is tried.
Receive(s) ==
    \/ HasStepDown /\ \E term \in Terms : ObserveTerm(s, term)
    \/ \E m \in network : HandlePreVote(s, m) \/ GrantVote(s, m)
    \/ \E term \in Terms :
         /\ term >= currentTerm[s]
         /\ \E last \in IF HasEveryAppend THEN ledger[term].from..Len(ledger[term].log) ELSE {Len(ledger[term].log)} :
              \E commit \in IF HasEveryAppend THEN {0, told[term]} ELSE {told[term]} :
                 AppendEntries(s, term, ledger[term].from, last - ledger[term].from, commit)
    \/ \E m \in snapshots : HandleSnapshot(s, m)

Next ==
    \E s \in Server :
      \/ Persist(s) \/ (HasUnwritten(s) /\ HandOut(s)) \/ Durable(s)
      \/ Receive(s)
      \/ Crash(s)
      \/ HasStepDown /\ StepDown(s)
      \/ BecomePreCandidate(s) \/ BecomeCandidate(s) \/ BecomeLeader(s)
      \/ \E term \in Terms, heir \in Server : HandOver(s, term, heir)
      \/ Propose(s)
      \/ \E voters \in Targets : ProposeChange(s, voters)
      \/ LeaveJoint(s)
      \/ \E index \in (commitIndex[s] + 1)..Len(log[s]) : AdvanceCommit(s, index)
      \/ HasCompaction /\ \E index \in (base[s].index + 1)..commitIndex[s] : Compact(s, index)
      \/ HasCompaction /\ base[s].index > 0 /\ SendSnapshot(s, commitIndex[s])

Spec == Init /\ [][Next]_vars

-----------------------------------------------------------------------------
(* What must hold (Raft figure 3, and what this core adds) *)

\* At most one leader a term, and it wins once: a second win of the same server would begin the term anew.
ElectionSafety == \A t \in Terms : elected[t] <= 1

SameUpTo(a, b, n) == \A i \in 1..n : a[i].term = b[i].term
Matches(a, b) ==
    \A i \in 1..Min(Len(a), Len(b)) : a[i].term = b[i].term => SubSeq(a, 1, i) = SubSeq(b, 1, i)
LogMatching ==
    /\ \A s, x \in Server : Matches(log[s], log[x])
    /\ \A s \in Server, t \in Terms : Matches(log[s], ledger[t].log)

Has(l, d) == d.index <= Len(l) /\ l[d.index].term = d.term
LeaderCompleteness ==
    \A s \in Server : role[s] = "leader" => \A d \in decided : d.at < currentTerm[s] => Has(log[s], d)

\* Who could be voted for now, by whom: the leader to come is complete as well.
Supporters(s) == {x \in Server : IsUpToDate(Len(log[s]), LastTerm(log[s]), log[x])}
IsElectable(s) == CanCampaign(s) /\ IsQuorum(Supporters(s), Config(s))
NextLeaderCompleteness ==
    \A s \in Server : IsElectable(s) => \A d \in decided : Has(log[s], d)

\* What one server calls committed at an index is committed there for all.
StateMachineSafety ==
    /\ \A d, e \in decided : d.index = e.index => d.term = e.term
    /\ \A s \in Server :
         /\ commitIndex[s] >= base[s].index /\ commitIndex[s] <= Len(log[s])
         /\ \A i \in 1..commitIndex[s] : \E d \in decided : d.index = i /\ d.term = log[s][i].term

\* One vote a term; a vote that left is on the disk, and so is what was acknowledged.
VoteOnce ==
    \A m \in network : m.type = "grant" =>
        /\ \A n \in network : n.type = "grant" /\ n.term = m.term /\ n.voter = m.voter => n.candidate = m.candidate
        /\ disk[m.voter].term > m.term \/ (disk[m.voter].term = m.term /\ disk[m.voter].vote = m.candidate)
AcknowledgedIsDurable ==
    \A t \in Terms, s \in Server :
        /\ acks[t][s] > 0 => disk[s].term >= t
        /\ disk[s].term = t => /\ acks[t][s] <= Len(disk[s].log)
                               /\ SameUpTo(disk[s].log, ledger[t].log, acks[t][s])

\* No two disjoint sets of servers could both decide: neither of two elections now, nor of two configurations that
\* follow each other in a log.
Apart(Q, c, R, d) == \E A \in SUBSET Q : IsQuorum(A, c) /\ IsQuorum(R \ A, d)
ConfigurationSafety ==
    /\ \A s, x \in Server :
         (s # x /\ Config(s) # Config(x) /\ IsElectable(s) /\ IsElectable(x))
            => ~Apart(Supporters(s), Config(s), Supporters(x), Config(x))
    /\ \A s \in Server : \A i \in (base[s].index + 1)..Len(log[s]) :
         log[s][i].kind = "config" =>
            LET before == ConfigAt(log[s], base[s], i - 1).config
            IN ~Apart(before.new \cup before.old, before, log[s][i].config.new \cup log[s][i].config.old,
                      log[s][i].config)

\* The configuration that a server goes by is the latest of its whole log, also below the base.
ConfigurationIsTheLogs ==
    \A s \in Server : Config(s) = ConfigAt(log[s], InitialBase, Len(log[s])).config

TypeOK ==
    /\ \A s \in Server :
         /\ currentTerm[s] \in 0..MaxTerm
         /\ votedFor[s] \in Server \cup {Nil}
         /\ role[s] \in {"follower", "pre-candidate", "candidate", "leader"}
         /\ Len(log[s]) <= MaxLog
         /\ role[s] = "leader" => ledger[currentTerm[s]].log = log[s] /\ LastTerm(log[s]) = currentTerm[s]
         /\ role[s] = "candidate" => votedFor[s] = s
         /\ MaxWriting = 0 => writing[s] = <<>>

\* The commit index of a process never falls.
CommitIsMonotonic == [][\A s \in Server : commitIndex'[s] >= commitIndex[s] \/ crashes' > crashes]_vars
=============================================================================
