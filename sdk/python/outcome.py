"""The answer to a batch, as it is written."""

from operator import index
from struct import Struct
from typing import Dict, List, Optional, Sequence

from wit_world.imports import types

from .values import ABSENT, BOOLEAN, BYTEA, EMIT, FLOAT, REJECT, TEXT, UNCHANGED, UUID, Value, Verdict

FLOATS = Struct("<d")
BITS = Struct("<Q")


class Outcome:
    """Verdicts, and what comes with them."""

    def __init__(self, count: int) -> None:
        self.verdicts = bytearray(count)
        self._count = count
        self._event_routes: List[int] = []
        self._row_events: List[int] = []
        self._row_shapes: List[int] = []
        self._row_routes: List[int] = []
        self._starts: List[int] = []
        self._tags = bytearray()
        self._data: List[int] = []
        self._heap = bytearray()
        self._routes: Dict[str, int] = {}
        self._reasons: Dict[int, str] = {}

    def finish(self) -> types.Outcome:
        """In the words of walmill.wit."""
        reasons = [why for event, why in self._reasons.items() if self.verdicts[event] == REJECT]
        return types.Outcome(
            verdicts=bytes(self.verdicts),
            event_routes=self._event_routes,
            row_events=self._row_events,
            row_shapes=self._row_shapes,
            row_routes=self._row_routes if any(self._row_routes) else [],
            starts=[*self._starts, len(self._tags)] if self._tags else [],
            tags=bytes(self._tags),
            data=self._data,
            heap=bytes(self._heap),
            routes=list(self._routes),
            reasons=reasons,
        )

    def route(self, event: int, stream: str) -> None:
        """Sends an event to a stream."""
        if not self._event_routes:
            self._event_routes = [0] * self._count
        self._event_routes[event] = self._route(stream)

    def reject(self, event: int, reason: str) -> Verdict:
        """Sets an event aside."""
        self._reasons[event] = reason
        self.verdicts[event] = REJECT
        return REJECT

    def emit(
        self, event: int, tags: List[int], cells: Sequence[Value], shape: int, stream: Optional[str]
    ) -> Verdict:
        """Adds a row."""
        if len(tags) != len(cells):
            raise ValueError(f"shape {shape} has {len(tags)} computed columns, not {len(cells)}")
        self._row_events.append(event)
        self._row_shapes.append(shape)
        self._row_routes.append(self._route(stream) if stream is not None else 0)
        self._starts.append(len(self._tags))
        for tag, value in zip(tags, cells):
            self._cell(tag, value)
        self.verdicts[event] = EMIT
        return EMIT

    def _route(self, stream: str) -> int:
        return self._routes.setdefault(stream, len(self._routes) + 1)

    def _cell(self, tag: int, value: Value) -> None:
        if value is None or value is UNCHANGED or value is ABSENT:
            self._tags.append(0 if value is None else value.value)
            self._data.append(0)
            return
        self._tags.append(tag)
        self._data.append(self._kept(tag, value) if tag >= TEXT else _bits(tag, value))

    def _kept(self, tag: int, value: Value) -> int:
        wanted = bytes if tag in (BYTEA, UUID) else str
        if not isinstance(value, wanted):
            raise TypeError(f"{value!r} is not of type {wanted.__name__}")
        kept = value.encode() if isinstance(value, str) else value
        start = len(self._heap)
        self._heap += kept
        return start << 32 | len(kept)


def _bits(tag: int, value: Value) -> int:
    if tag == BOOLEAN:
        return int(bool(value))
    if tag == FLOAT:
        bits: int = BITS.unpack(FLOATS.pack(value))[0]
        return bits
    whole = index(value)
    if not -(1 << 63) <= whole < 1 << 63:
        raise OverflowError(f"{whole} has more than 64 bits")
    return whole & 0xFFFFFFFFFFFFFFFF
