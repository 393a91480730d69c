"""raftkv measured against etcd on one machine, in turns; see README.md for the method.

The comparison starts its own processes on loopback, ends them by their ids, and needs nothing from the server but its
command line and its HTTP interface: what it measures is what a user gets. Only `transport`, which measures a part
of the server alone and is run by itself, imports from it.
"""
