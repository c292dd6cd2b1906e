"""Orders for the people who ship them: only the statuses they care for, masked emails, a mark on
large orders, one stream per region."""

import re

from walmill import DROP, Config, Plan, Plugin, Row, Shape, Table, Verdict, computed

NEEDS = ["status", "email", "quantity", "region"]

# The first quantity that a 64-bit float can't tell from its neighbour.
LARGE = 9_007_199_254_740_993


class Orders(Plugin):
    def start(self, config: Config) -> None:
        self.keep = frozenset(config.texts("keep", ["paid", "shipped"]))

    def relation(self, table: Table) -> Plan:
        for name in NEEDS:
            if name not in table:
                raise LookupError(f"no column `{name}`")
        columns = table.row() | {"email": computed("text"), "large": computed("boolean")}
        return Plan(needs=NEEDS, shapes=[Shape(columns)])

    def process(self, row: Row) -> Verdict:
        if row.text("status") not in self.keep:
            return DROP
        quantity = row.integer("quantity")
        if quantity is not None and quantity < 0:
            return row.reject(f"negative quantity: {quantity}")
        email = row.get("email")
        if region := row.text("region"):
            row.to(f"orders.{lower_case(region)}")
        return row.emit(
            mask(email) if isinstance(email, str) else email,
            None if quantity is None else quantity >= LARGE,
        )


def mask(email: str) -> str:
    """`ada@example.com` as `a***@example.com`; what is no address as `***`."""
    _, at, host = email.rpartition("@")
    return f"{email[0]}***@{host}" if at else "***"


def lower_case(text: str) -> str:
    """Of ASCII letters only."""
    return re.sub("[A-Z]+", lambda letters: letters[0].lower(), text)
