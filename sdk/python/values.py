"""Verdicts and values: the codes of walmill.wit."""

from enum import Enum
from typing import Final, NewType, Union

Verdict = NewType("Verdict", int)

PASS: Final = Verdict(0)
"""The event goes on as it is, or in the plan's `pass_shape`."""
DROP: Final = Verdict(1)
"""The event goes nowhere."""
EMIT: Final = Verdict(2)
REJECT: Final = Verdict(3)


class Missing(Enum):
    """What stands in place of a value that PostgreSQL did not send."""

    UNCHANGED = 32
    """A large value that an update left as it was."""
    ABSENT = 33
    """A column outside an old row's replica identity."""


UNCHANGED: Final = Missing.UNCHANGED
ABSENT: Final = Missing.ABSENT

Value = Union[None, bool, int, float, str, bytes, Missing]
"""Timestamps and times are microseconds, dates are days, since 1970-01-01 UTC. `bytea` and `uuid`
are bytes; every other type is text."""

NULL: Final = 0
BOOLEAN: Final = 1
INTEGER: Final = 2
FLOAT: Final = 3
TIMESTAMP: Final = 4
DATE: Final = 5
TIME: Final = 6
TEXT: Final = 16
BYTEA: Final = 19
UUID: Final = 20
ARRAY: Final = 21

TAGS: Final = {
    "boolean": BOOLEAN,
    "integer": INTEGER,
    "float": FLOAT,
    "timestamp": TIMESTAMP,
    "date": DATE,
    "time": TIME,
    "text": TEXT,
    "numeric": 17,
    "json": 18,
    "bytea": BYTEA,
    "uuid": UUID,
    "array": ARRAY,
}
