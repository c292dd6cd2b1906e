"""What a plugin is."""

from dataclasses import dataclass
from typing import ClassVar, Optional, Sequence, Type

from .batch import Event, Row
from .config import Config
from .table import Plan, Table
from .values import PASS, Verdict


@dataclass(frozen=True)
class Setup:
    """What an instance is told beside its configuration."""

    worker: int
    """Which of the instances this is."""
    workers: int
    dry_run: bool
    """What comes out is compared, not delivered."""


class Plugin:
    """A plugin. A class that is derived from this one is the module's."""

    needs: ClassVar[Sequence[str]] = ()
    """The columns that enter the plugin."""
    version: ClassVar[str] = "0.1.0"
    wants: ClassVar[Sequence[str]] = ()
    """What of walmill's offers it means to use, as in `["kv"]`."""
    config_schema: ClassVar[str] = ""
    """JSON Schema of the configuration."""

    setup: Setup

    registered: ClassVar[Optional[Type["Plugin"]]] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        Plugin.registered = cls

    def start(self, config: Config) -> None:
        """Called once. A key that is not read is an error of the configuration."""

    def relation(self, table: Table) -> Plan:
        """The plan for a table. What is raised refuses the table."""
        return Plan(needs=self.needs)

    def process(self, row: Row) -> Verdict:
        """Judges a row as it is now: of an insert, an update or a snapshot."""
        raise NotImplementedError

    def deleted(self, row: Row) -> Verdict:
        """Judges a row that was deleted."""
        return PASS

    def other(self, event: Event) -> Verdict:
        """Judges what is no row: truncates and messages."""
        return PASS
