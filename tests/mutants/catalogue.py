"""All planted bugs, by subject."""

from tests.mutants.clients import CLIENTS
from tests.mutants.commitment import COMMITMENT
from tests.mutants.elections import ELECTIONS
from tests.mutants.log_on_disk import LOG_ON_DISK
from tests.mutants.members import MEMBERS
from tests.mutants.mutant import Mutant
from tests.mutants.reads import READS
from tests.mutants.replication import REPLICATION
from tests.mutants.states import STATES

CATALOGUE: dict[str, tuple[Mutant, ...]] = {
    "elections": ELECTIONS,
    "replication": REPLICATION,
    "commitment": COMMITMENT,
    "members": MEMBERS,
    "reads": READS,
    "log on disk": LOG_ON_DISK,
    "state and snapshots": STATES,
    "clients": CLIENTS,
}

HARDEST = {
    "elections": "elections",
    "replication": "elections",
    "commitment": "elections",
    "members": "members",
    "reads": "leases",
    "log on disk": "disks",
    "state and snapshots": "disks",
    "clients": "elections",
}
"""Which variant of `raftkv.sim.tuning` is hardest on each subject: every second run is one of these."""

MUTANTS: dict[str, Mutant] = {one.name: one for group in CATALOGUE.values() for one in group}

VARIANT_OF = {one.name: HARDEST[subject] for subject, group in CATALOGUE.items() for one in group}
