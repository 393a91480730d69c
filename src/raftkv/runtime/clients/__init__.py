"""What clients ask of a replica: commands on their way into the log, reads that wait for the leader's word.

Queues with bounds and deadlines, told what has happened by the replica (`applied`, `leadership_lost`); each request is
answered once. No clock, socket or task of its own: time and wake-ups are given to it.
"""
