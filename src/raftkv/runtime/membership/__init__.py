"""Who belongs to the cluster: joining, being joined, leaving, and whom to stay connected to meanwhile.

The procedure around the core's configuration changes (docs/design/joining.md); what is safe is for `raft` to say.
"""
