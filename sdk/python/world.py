"""What stands between the world's functions and a plugin."""

from typing import Dict, Optional

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import lifecycle
from wit_world.imports import types

from .batch import Announced, judge
from .config import Config
from .plugin import Plugin, Setup
from .table import Table

# Put in by `build.py`.
NAME = ""

_plugin: Optional[Plugin] = None
_tables: Dict[int, Announced] = {}


def _class() -> type[Plugin]:
    if Plugin.registered is None:
        raise RuntimeError("the module has no class that is derived from `walmill.Plugin`")
    return Plugin.registered


def _running() -> Plugin:
    if _plugin is None:
        raise RuntimeError("`init` comes first")
    return _plugin


class Lifecycle(exports.Lifecycle):
    """The world's interface."""

    def describe(self) -> lifecycle.Description:
        plugin = _class()
        return lifecycle.Description(
            NAME, plugin.version, list(plugin.wants), plugin.config_schema
        )

    def init(self, s: lifecycle.Setup) -> None:
        global _plugin
        config = Config(s.config)
        plugin = _class()()
        plugin.setup = Setup(s.worker, s.workers, s.dry_run)
        try:
            plugin.start(config)
        except Exception as error:
            config.wrong("", _words(error))
        if findings := config.findings():
            raise Err([lifecycle.Finding(path, message) for path, message in findings])
        _plugin = plugin


class Transform(exports.Transform):
    """The world's interface."""

    def on_relation(self, r: types.Relation) -> types.Plan:
        try:
            table = Table(r)
            plan = table.bind(_running().relation(table))
        except Exception as error:
            raise Err(_words(error))
        places = {table.columns[index].name: place for place, index in enumerate(plan.needs)}
        shapes = [[*_computed(shape)] for shape in plan.shapes]
        _tables[table.id] = Announced(table, places, shapes)
        return plan

    def process(self, b: types.Batch) -> types.Outcome:
        try:
            return judge(_running(), b, _tables).finish()
        except Exception as error:
            raise Err(_words(error))


def _computed(shape: types.Shape):
    for column in shape.columns:
        if isinstance(column.source, types.Source_Computed):
            yield column.source.value


def _words(error: Exception) -> str:
    """What a plugin said itself as it said it; what went wrong with the kind of error."""
    if type(error) in (ValueError, LookupError):
        return str(error)
    return f"{type(error).__name__}: {error}"
