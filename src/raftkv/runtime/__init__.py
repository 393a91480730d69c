"""The runtime: asyncio joins the rooms into a node that runs.

`node.Node` is what others use; `driver.Driver` is the loop that carries out the core's effects, shared with the
simulator. This room decides when things happen (ticks, batches, flushes, retries) and never what is true: that is
for `raft` and `kv`. It must not know HTTP or the command line. It may use `storage`, `transport`, `kv`, `raft`,
`statemachine`, `types` and `errors`.

Within it: `settings`, `membership`, `clients` (their commands and reads), `watching` (metrics, status, logs); beside
them what makes a node of all: `node` and its one `replica`, driven in turns.

`Node` and its parts are loaded when they are first asked for: whoever needs only settings, such as each command of a
client, would otherwise load consensus, storage and transport too.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from raftkv.runtime.addresses import is_loopback, join_address, split_address
from raftkv.runtime.settings import (
    CONFIG_ENVIRONMENT,
    OTHER_ENVIRONMENT,
    SETTINGS,
    InitialMember,
    Settings,
    SettingSpec,
    Unit,
    load_settings,
)
from raftkv.runtime.watching.histogram import Histogram
from raftkv.runtime.watching.logs import configure_logging

if TYPE_CHECKING:
    from raftkv.runtime import wire
    from raftkv.runtime.clients.codec import KeyValueCodec
    from raftkv.runtime.maintenance import Maintenance
    from raftkv.runtime.membership.changes import Membership
    from raftkv.runtime.node import Node
    from raftkv.runtime.replica import Replica

__all__ = [
    "CONFIG_ENVIRONMENT",
    "OTHER_ENVIRONMENT",
    "SETTINGS",
    "Histogram",
    "InitialMember",
    "KeyValueCodec",
    "Maintenance",
    "Membership",
    "Node",
    "Replica",
    "SettingSpec",
    "Settings",
    "Unit",
    "configure_logging",
    "is_loopback",
    "join_address",
    "load_settings",
    "split_address",
    "wire",
]


_LOADED_WHEN_ASKED = {
    "KeyValueCodec": "raftkv.runtime.clients.codec",
    "Maintenance": "raftkv.runtime.maintenance",
    "Membership": "raftkv.runtime.membership.changes",
    "Node": "raftkv.runtime.node",
    "Replica": "raftkv.runtime.replica",
}


def __getattr__(name: str) -> Any:
    if name == "wire":
        return importlib.import_module("raftkv.runtime.wire")
    if name not in _LOADED_WHEN_ASKED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LOADED_WHEN_ASKED[name]), name)
