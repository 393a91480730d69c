"""The loop that carries out the core's effects, without clock, socket or thread.

The server and the simulator drive the same core through this one class; they differ only in the
`DriverPorts` they give it. The duty it fulfils is written in `raftkv.raft.effects`; the letters in the
comments below are that list's.

Inputs only mark work as waiting (`wake`); `process` then takes everything the core has to say at once, so
that a burst of messages costs one log write and one round of sends.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple, Protocol

from raftkv.raft import ConfirmedRead, Effects, Leadership, Message, RaftNode
from raftkv.storage import WalStep
from raftkv.types import Configuration, Entry, HardState, MemberId, SnapshotMetadata

PASSES_A_TURN = 4
"""After so many rounds of effects the driver lets other work of the process have its turn."""


class DriverPorts(Protocol):
    """The world, as the driver needs it. All calls return at once."""

    def wake(self) -> None:
        """Call `Driver.process` soon; calling this again before then changes nothing."""

    def write_log(self, step: WalStep) -> int:
        """Queue a log step; its number comes back to `Driver.durable` once it is on disk."""
        ...

    def send(self, message: Message) -> None: ...

    def flush(self) -> None:
        """Let what was sent leave and what was written begin its way to the disk, before what takes longer is done."""

    def apply(self, entries: list[Entry]) -> None:
        """Apply in order and report to `Driver.applied`."""

    def install_snapshot(self, snapshot: SnapshotMetadata, hard_state: HardState | None) -> None:
        """Put the staged state of `snapshot` and an empty log behind it in the place of state and log.

        Once that is durable, together with `hard_state` (None: as it was) and after every log step queued before,
        call `Driver.installed`.
        """

    def stream_snapshot(self, recipient: MemberId) -> None:
        """Send a snapshot and report to `RaftNode.snapshot_sent`."""

    def reads_confirmed(self, reads: list[ConfirmedRead]) -> None: ...

    def reads_refused(self, request_ids: list[int]) -> None: ...

    def leadership_changed(self, leadership: Leadership) -> None: ...

    def configuration_changed(self, configuration: Configuration) -> None: ...


class _UnsyncedStep(NamedTuple):
    step_number: int
    ticket: int
    messages: list[Message]


class Driver:
    """See the module. Not re-entrant and for one thread: the ports must not call `process` themselves."""

    __slots__ = ("_installing", "_unsynced", "ports", "raft")

    def __init__(self, raft: RaftNode, ports: DriverPorts) -> None:
        self.raft = raft
        self.ports = ports
        self._unsynced: deque[_UnsyncedStep] = deque()
        self._installing: Effects | None = None

    @property
    def is_installing(self) -> bool:
        """While a snapshot is being put in place the core's further effects wait."""
        return self._installing is not None

    def process(self) -> None:
        """Carry out what the core has to say; asks to be woken again when there is more."""
        raft = self.raft
        for _ in range(PASSES_A_TURN):
            if self._installing is not None or not raft.has_ready():
                return
            effects = raft.ready()
            if effects.snapshot is not None:
                self._installing = effects
                self.ports.install_snapshot(effects.snapshot, effects.hard_state)
                return
            self._carry_out(effects)
        if raft.has_ready():
            self.ports.wake()

    def durable(self, step_number: int) -> None:
        """All log steps up to `step_number` are on disk."""
        unsynced = self._unsynced
        ticket = 0
        send = self.ports.send
        while unsynced and unsynced[0].step_number <= step_number:
            step = unsynced.popleft()
            ticket = step.ticket
            for message in step.messages:  # (c)
                send(message)
        if ticket:
            self.ports.flush()
            self.raft.persisted(ticket)
            if self.raft.has_ready():
                self.ports.wake()

    def applied(self, index: int) -> None:
        self.raft.applied(index)
        if self.raft.has_ready():
            self.ports.wake()

    def installed(self) -> None:
        """The state of the snapshot that `install_snapshot` was called for is in place, and durable."""
        effects = self._installing
        if effects is None:
            return
        self._installing = None
        self._carry_out(effects)
        self.ports.wake()

    def _carry_out(self, effects: Effects) -> None:
        ports = self.ports
        for message in effects.messages:  # (b) first: while the network carries them, this disk writes (Thesis §10.2.1)
            ports.send(message)
        if effects.ticket:  # (a)
            step_number = ports.write_log(WalStep(None, effects.hard_state, effects.entries))
            self._unsynced.append(_UnsyncedStep(step_number, effects.ticket, effects.messages_after_persist))
        if effects.messages or effects.ticket:
            ports.flush()
        if effects.configuration is not None:
            ports.configuration_changed(effects.configuration)
        if effects.leadership is not None:
            ports.leadership_changed(effects.leadership)
        if effects.committed:  # (d)
            ports.apply(effects.committed)
        if effects.reads:  # (e)
            ports.reads_confirmed(effects.reads)
        if effects.refused_reads:
            ports.reads_refused(effects.refused_reads)
        for recipient in effects.snapshots_to_send:  # (f)
            ports.stream_snapshot(recipient)
