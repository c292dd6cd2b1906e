"""Tables as they are announced, and what a plugin answers to that: its plan."""

from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Dict, List, Optional, Sequence, Union

from wit_world.imports import types

from .values import TAGS

Column = types.Column
Source = Union[types.Source_Computed, types.Source_Fixed, str]
"""Where a column of a shape comes from: a text is the name of an input column."""


def computed(type_name: str) -> Source:
    """The next of the cells that `emit` is called with."""
    return types.Source_Computed(TAGS[type_name])


def fixed(text: str) -> Source:
    """The same text in every row."""
    return types.Source_Fixed(text)


def input_column(name: str) -> Source:
    """An input column. Its values never enter the plugin."""
    return name


@dataclass
class Shape:
    """The columns of an emitted row in their order, under the table's own name or another."""

    columns: Dict[str, Source]
    table: Optional[str] = None


@dataclass
class Plan:
    """What a plugin needs of a table, and may emit for it."""

    needs: Sequence[str] = ()
    old: bool = False
    envelope: bool = False
    shapes: Sequence[Shape] = ()
    pass_shape: Optional[Shape] = None
    mode: types.Mode = field(default=types.Mode.CALL)

    @staticmethod
    def pass_all() -> "Plan":
        """Every event of the table passes, and the plugin is never called."""
        return Plan(mode=types.Mode.PASS)

    @staticmethod
    def drop_all() -> "Plan":
        """Every event of the table is dropped, and the plugin is never called."""
        return Plan(mode=types.Mode.DROP)


class Table:
    """A table, announced before its first event and whenever its definition has changed."""

    def __init__(self, relation: types.Relation) -> None:
        self.id = relation.id
        self.schema = relation.schema
        self.table = relation.table
        self.name = f"{relation.schema}.{relation.table}"
        self.columns: List[Column] = relation.columns
        self.full_old_rows = relation.full_old_rows
        self._places = {column.name: place for place, column in enumerate(relation.columns)}

    def __contains__(self, column: str) -> bool:
        return column in self._places

    def column(self, name: str) -> Column:
        """A column that has to be there; the error names those that are."""
        return self.columns[self.index(name)]

    def row(self) -> Dict[str, Source]:
        """Every column in its place: a shape to start from."""
        return {name: name for name in self._places}

    def index(self, name: str) -> int:
        """Where a column that has to be there stands."""
        if name in self._places:
            return self._places[name]
        close = get_close_matches(name, self._places, 1)
        hint = f"; did you mean `{close[0]}`?" if close else ""
        names = ", ".join(self._places)
        raise LookupError(f"{self.name} has no column `{name}`{hint} (its columns: {names})")

    def bind(self, plan: Plan) -> types.Plan:
        """The plan in the words of walmill.wit."""
        shapes = [*plan.shapes, *([plan.pass_shape] if plan.pass_shape else [])]
        return types.Plan(
            mode=plan.mode,
            needs=[self.index(name) for name in dict.fromkeys(plan.needs)],
            old=plan.old,
            envelope=plan.envelope,
            shapes=[self._shape(shape) for shape in shapes],
            pass_shape=len(plan.shapes) if plan.pass_shape else None,
        )

    def _shape(self, shape: Shape) -> types.Shape:
        columns = [
            types.OutColumn(name, self._source(source)) for name, source in shape.columns.items()
        ]
        return types.Shape(shape.table, columns)

    def _source(self, source: Source) -> types.Source:
        return types.Source_Input(self.index(source)) if isinstance(source, str) else source
