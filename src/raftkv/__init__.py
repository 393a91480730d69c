"""raftkv: a strongly consistent, replicated key-value database on Raft.

Rooms, from the inside out (imports point inwards only; a test reads them):

    cli, api  ->  runtime  ->  storage, transport, kv, raft, statemachine  ->  types, errors

`client` stands beside them and uses only `types` and `errors`.
"""

__version__ = "0.1.0"
