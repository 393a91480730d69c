"""A state machine of one's own: accounts, and transfers between them.

`raftkv sim --state-machine examples.bank:Bank` tries to break it.

Money is never made nor lost, whatever happens to the machines; `apply` says so itself.
"""

from __future__ import annotations

import json
import random

ACCOUNTS = [f"account-{number}" for number in range(5)]
OPENING_BALANCE = 100


class Bank:
    """Commands are JSON: `{"from": …, "to": …, "amount": …}`; the result is the sender's balance, or why not."""

    def __init__(self) -> None:
        self.balances = dict.fromkeys(ACCOUNTS, OPENING_BALANCE)

    def apply(self, command: bytes) -> bytes:
        order = json.loads(command)
        payer, payee, amount = order["from"], order["to"], order["amount"]
        if self.balances[payer] < amount:
            return b"refused: not enough"
        self.balances[payer] -= amount
        self.balances[payee] += amount
        if sum(self.balances.values()) != OPENING_BALANCE * len(ACCOUNTS):
            raise AssertionError(f"money was made or lost: {self.balances}")
        return b"%d" % self.balances[payer]

    def snapshot(self) -> bytes:
        return json.dumps(self.balances, sort_keys=True).encode()

    def restore(self, data: bytes) -> None:
        self.balances = json.loads(data)

    @staticmethod
    def random_command(source: random.Random) -> bytes:
        payer, payee = source.sample(ACCOUNTS, 2)
        return json.dumps({"from": payer, "to": payee, "amount": source.randint(1, 60)}).encode()
