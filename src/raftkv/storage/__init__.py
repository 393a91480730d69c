"""Everything on disk: the log, the state, snapshots, and the directory that they live in.

The only room that touches the disk. It decides nothing about consensus or keys: it keeps what it is given, says when
that is durable, and refuses to open what it cannot trust. Each thing here has a double in memory with the same
contract, and one suite of tests runs on both.

May use: types, errors, and the interfaces of raft (`LogStorage`) and statemachine (`OrderedStore`).
"""

from raftkv.storage.burst_carrier import BurstCarrier
from raftkv.storage.datadir import DataDirectory, Generation, check_present
from raftkv.storage.disk import FileOps, InlineExecutor, OsFiles, free_bytes
from raftkv.storage.engine import RocksSettings, RocksStore
from raftkv.storage.files import remove_tree
from raftkv.storage.identity import Identity
from raftkv.storage.inspection import LogSummary, StoppedDirectory
from raftkv.storage.log_files import LogFiles, WalSettings, WalStats
from raftkv.storage.log_inspect import InspectedRecord, Verdict
from raftkv.storage.log_opening import found_log, open_log
from raftkv.storage.log_writer import WalStep
from raftkv.storage.memory_disk import MemoryDisk, PowerCut
from raftkv.storage.memory_log import MemoryLog
from raftkv.storage.memory_store import MemoryStore
from raftkv.storage.snapshots import SnapshotSink, SnapshotSource
from raftkv.storage.wal import Wal
from raftkv.storage.write_behind import WriteBehind

__all__ = [
    "BurstCarrier",
    "DataDirectory",
    "FileOps",
    "Generation",
    "Identity",
    "InlineExecutor",
    "InspectedRecord",
    "LogFiles",
    "LogSummary",
    "MemoryDisk",
    "MemoryLog",
    "MemoryStore",
    "OsFiles",
    "PowerCut",
    "RocksSettings",
    "RocksStore",
    "SnapshotSink",
    "SnapshotSource",
    "StoppedDirectory",
    "Verdict",
    "Wal",
    "WalSettings",
    "WalStats",
    "WalStep",
    "WriteBehind",
    "check_present",
    "found_log",
    "free_bytes",
    "open_log",
    "remove_tree",
]
