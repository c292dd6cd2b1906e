"""Write walmill plugins in Python. A whole one, which keeps the rows of a country:

    from walmill import DROP, PASS, Config, Plugin, Row, Verdict

    class Local(Plugin):
        needs = ["country"]

        def start(self, config: Config) -> None:
            self.country = config.text("country")

        def process(self, row: Row) -> Verdict:
            return PASS if row.text("country") == self.country else DROP

The module's one `Plugin` is the plugin. Only the columns that a plan needs enter it, so need few;
a text is read when it is asked for.
"""

from .batch import Cells, Event, Row
from .config import Config
from .plugin import Plugin, Setup
from .table import Column, Plan, Shape, Source, Table, computed, fixed, input_column
from .values import ABSENT, DROP, PASS, UNCHANGED, Missing, Value, Verdict

__all__ = [
    "ABSENT", "DROP", "PASS", "UNCHANGED", "Cells", "Column", "Config", "Event", "Missing", "Plan",
    "Plugin", "Row", "Setup", "Shape", "Source", "Table", "Value", "Verdict", "computed", "fixed",
    "input_column",
]
