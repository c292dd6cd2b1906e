"""A batch, row by row. One `Row` is handed to the plugin again and again."""

from struct import Struct
from typing import TYPE_CHECKING, Dict, List, NamedTuple, Optional

from wit_world.imports.types import Batch

from .outcome import Outcome
from .table import Table
from .values import (
    ABSENT, ARRAY, BOOLEAN, BYTEA, DROP, FLOAT, INTEGER, NULL, PASS, TEXT, UNCHANGED, UUID, Value,
    Verdict,
)

if TYPE_CHECKING:
    from .plugin import Plugin

DELETE = 2
SNAPSHOT = 5
OPS = ("insert", "update", "delete", "truncate", "message", "snapshot")
LOW = 0xFFFFFFFF
FLOATS = Struct("<d")
BITS = Struct("<Q")


class Announced(NamedTuple):
    """What the plan for a table says about the cells that come with its events."""

    table: Optional[Table]
    places: Dict[str, int]
    shapes: List[List[int]]
    """The tags of each shape's computed columns."""


NOTHING = Announced(None, {}, [])


class Cells:
    """The columns of a row that the plan needs. A value of another type than asked for is None."""

    _places: Dict[str, int]
    _tags: bytes
    _data: List[int]
    _heap: bytes
    _start: int
    _end: int
    _width: int

    def __contains__(self, column: str) -> bool:
        return column in self._places

    def text(self, column: str) -> Optional[str]:
        """The text in a column."""
        at = self._start + self._places[column]
        if self._tags[at] != TEXT:
            at = self._present(column)
            if self._tags[at] != TEXT:
                return None
        data = self._data[at]
        start = data >> 32
        return self._heap[start : start + (data & LOW)].decode()

    def integer(self, column: str) -> Optional[int]:
        """The integer in a column."""
        at = self._present(column)
        return _signed(self._data[at]) if self._tags[at] == INTEGER else None

    def number(self, column: str) -> Optional[float]:
        """The floating-point number in a column."""
        at = self._present(column)
        return _float(self._data[at]) if self._tags[at] == FLOAT else None

    def boolean(self, column: str) -> Optional[bool]:
        """The boolean in a column."""
        at = self._present(column)
        return self._data[at] != 0 if self._tags[at] == BOOLEAN else None

    def get(self, column: str) -> Value:
        """The value, whatever its type; `UNCHANGED` and `ABSENT` when PostgreSQL did not send it."""
        at = self._present(column)
        tag, data = self._tags[at], self._data[at]
        if tag == NULL:
            return None
        if tag == BOOLEAN:
            return data != 0
        if tag == FLOAT:
            return _float(data)
        if tag < TEXT:
            return _signed(data)
        if tag <= ARRAY:
            start = data >> 32
            value = self._heap[start : start + (data & LOW)]
            return value if tag in (BYTEA, UUID) else value.decode()
        return UNCHANGED if tag == UNCHANGED.value else ABSENT

    def _present(self, column: str) -> int:
        """Where a value lies: of one that an update left as it was in the old row, if there."""
        at = self._start + self._places[column]
        before = at + self._width
        if self._tags[at] == UNCHANGED.value and before < self._end:
            return at if self._tags[before] == ABSENT.value else before
        return at


class Event:
    """What every event has. It is good only while the function runs that it is handed to."""

    _batch: Batch
    _event: int
    _known: Announced
    _outcome: Outcome

    @property
    def op(self) -> str:
        """`insert`, `update`, `delete`, `truncate`, `message` or `snapshot`."""
        return OPS[self._batch.ops[self._event]]

    @property
    def table(self) -> Optional[Table]:
        """Its table; of a message there is none."""
        return self._known.table

    @property
    def lsn(self) -> Optional[int]:
        """Position of the commit, where the plan asked for the envelope."""
        return self._batch.lsns[self._event] if self._batch.lsns else None

    @property
    def time(self) -> Optional[int]:
        """Time of the commit in microseconds since 1970-01-01 UTC, where the plan asked for it."""
        return self._batch.times[self._event] if self._batch.times else None

    def to(self, stream: str) -> None:
        """Sends the event to another stream; say with the verdict what becomes of it."""
        self._outcome.route(self._event, stream)

    def reject(self, reason: str) -> Verdict:
        """To the dead letters, with the reason."""
        return self._outcome.reject(self._event, reason)


class Row(Cells, Event):
    """A row as it is now; of a delete the row as it was."""

    @property
    def old(self) -> Optional[Cells]:
        """The row as it was, where the plan asked for it and PostgreSQL sent it."""
        if self._end - self._start <= self._width:
            return None
        old = Cells()
        old._places, old._tags, old._data = self._places, self._tags, self._data
        old._heap, old._width, old._end = self._heap, self._width, self._end
        old._start = self._start + self._width
        return old

    def emit(self, *cells: Value, shape: int = 0, stream: Optional[str] = None) -> Verdict:
        """The event becomes a row of the plan's shape, with these computed cells. Called again it
        makes another row; a stream is for this row alone."""
        tags = self._known.shapes[shape]
        return self._outcome.emit(self._event, tags, cells, shape, stream)


def judge(plugin: "Plugin", batch: Batch, tables: Dict[int, Announced]) -> Outcome:
    """Asks for a verdict on each event."""
    outcome = Outcome(batch.count)
    row = Row()
    row._batch, row._outcome = batch, outcome
    row._tags, row._data, row._heap = batch.tags, batch.data, batch.heap
    process, starts, verdicts = plugin.process, batch.starts, outcome.verdicts
    last = None
    for event, (op, relation) in enumerate(zip(batch.ops, batch.relations)):
        if relation != last:
            last = relation
            row._known = known = tables.get(relation, NOTHING)
            row._places, row._width = known.places, len(known.places)
        row._event = event
        row._start = starts[event]
        row._end = starts[event + 1]
        if op < DELETE or op == SNAPSHOT:
            verdict = process(row)
        elif op == DELETE:
            verdict = plugin.deleted(row)
        else:
            verdict = plugin.other(row)
        if verdict is DROP:
            verdicts[event] = 1
        elif verdict is not PASS and verdict is not verdicts[event]:
            raise TypeError(f"{verdict!r} is no verdict: return PASS, DROP, row.emit(…), row.reject(…)")
    return outcome


def _signed(data: int) -> int:
    return data - (1 << 64) if data >> 63 else data


def _float(data: int) -> float:
    value: float = FLOATS.unpack(BITS.pack(data))[0]
    return value
