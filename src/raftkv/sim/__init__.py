"""A deterministic simulator: whole clusters under faults, in one process, on virtual time, from one seed.

What runs is the server's own code (consensus, log, state machine, queues, upkeep, membership); what is simulated is
what it stands on: time, network, disks, processes, clocks. `run(Plan(seed))` is one run; the same plan gives the same
trace, byte for byte. Every callback is followed by checks of what must always hold (`checks`), every run ends with a
check of all that its clients saw (`linearizability`).

Nothing here looks at a real clock, file or socket. May use: types, errors, raft, statemachine, kv, storage, transport
and runtime; never api or cli.
"""

from raftkv.sim.faults import KINDS, Fault
from raftkv.sim.history import FOREVER, Kind, Operation
from raftkv.sim.linearizability import check
from raftkv.sim.picture import draw
from raftkv.sim.run import Outcome, Plan, load_plan, run, save_plan, varied
from raftkv.sim.shrink import shrink
from raftkv.sim.tuning import Tuning

__all__ = [
    "FOREVER",
    "KINDS",
    "Fault",
    "Kind",
    "Operation",
    "Outcome",
    "Plan",
    "Tuning",
    "check",
    "draw",
    "load_plan",
    "run",
    "save_plan",
    "shrink",
    "varied",
]
