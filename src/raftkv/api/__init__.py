"""The skins over a node: what clients speak to.

`service` checks requests and builds answers, `status` alone says which error is which status, code and exit
code, `http` speaks HTTP. A skin never decides anything about data or members and never waits inside the event
loop; it knows the node only as `port.NodePort`.

May use: runtime (settings), kv (commands), types, errors. Never raft, storage or transport.
"""

from __future__ import annotations

from raftkv.api.port import HttpSettings, NodePort
from raftkv.api.service import KeyService
from raftkv.api.status import ExitCode, GrpcCode, exit_code, grpc_code, http_status

__all__ = [
    "ExitCode",
    "GrpcCode",
    "HttpSettings",
    "KeyService",
    "NodePort",
    "exit_code",
    "grpc_code",
    "http_status",
]
