"""What a state machine must do to be replicated, and the ordered store that it may stand on.

This room holds interfaces only. It must never import an implementation (`kv`, `storage`), open a file or
start a thread; it may use `types` and nothing else. The runtime drives whatever obeys `StateMachine`;
`kv.KeyValueMachine` is the one that this database ships.
"""

from raftkv.statemachine.interface import StateMachine
from raftkv.statemachine.store import OrderedStore, WriteBatch

__all__ = ["OrderedStore", "StateMachine", "WriteBatch"]
