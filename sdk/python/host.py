"""What walmill offers to plugins: log, clock and metrics. Keyed state is in `walmill.kv`."""

from typing import Callable, Union

from wit_world.imports import clock, log, metrics
from wit_world.imports.log import Level

Message = Union[str, Callable[[], str]]


def _line(level: Level, message: Message) -> None:
    if isinstance(message, str):
        log.log(level, message)
    elif log.enabled(level):
        log.log(level, message())


def debug(message: Message) -> None:
    """For who looks closely; a function is called only when somebody does."""
    _line(Level.DEBUG, message)


def info(message: Message) -> None:
    """Something worth knowing."""
    _line(Level.INFO, message)


def warn(message: Message) -> None:
    """Something that the operator should look at."""
    _line(Level.WARN, message)


def now() -> int:
    """The commit time of what is being processed, in microseconds: the same in every replay."""
    return clock.now()


class Counter:
    """A counter among walmill's metrics. Make it once, in `start`."""

    def __init__(self, name: str, help: str = "") -> None:
        self._id = metrics.counter(name, help)

    def add(self, delta: int = 1) -> None:
        """Counts."""
        metrics.add(self._id, delta)


class Gauge:
    """A figure that goes up and down, among walmill's metrics. Make it once, in `start`."""

    def __init__(self, name: str, help: str = "") -> None:
        self._id = metrics.gauge(name, help)

    def set(self, value: float) -> None:
        """Says how it stands."""
        metrics.set(self._id, value)
