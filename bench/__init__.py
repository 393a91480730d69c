"""raftkv measured against etcd on one machine, in turns; see README.md for the method.

The bench starts its own processes on loopback, ends them by their ids, and needs nothing from the
server but its command line and its HTTP interface. It must never import the server's rooms: what it
measures is what a user gets.
"""
