"""A plugin's configuration. What is read from it is what there may be; the rest is a finding."""

import json
from typing import Any, Callable, List, Optional, Tuple, TypeVar

T = TypeVar("T")


class Config:
    """The plugin's `config` table."""

    def __init__(self, text: str) -> None:
        self._table: dict[str, Any] = json.loads(text) if text else {}
        self._asked: set[str] = set()
        self._findings: List[Tuple[str, str]] = []

    def text(self, key: str, default: Optional[str] = None) -> str:
        """A text."""
        return self._read(key, default, "a text", lambda value: isinstance(value, str), "")

    def texts(self, key: str, default: Optional[List[str]] = None) -> List[str]:
        """A list of texts."""
        values: List[str] = self._read(
            key, default, "a list of texts", lambda value: isinstance(value, list), []
        )
        for index, value in enumerate(values):
            if not isinstance(value, str):
                self.wrong(f"{key}[{index}]", "must be a text")
        return [value for value in values if isinstance(value, str)]

    def integer(self, key: str, default: Optional[int] = None) -> int:
        """A whole number."""
        return self._read(key, default, "a whole number", lambda value: type(value) is int, 0)

    def number(self, key: str, default: Optional[float] = None) -> float:
        """A number."""
        accepts = lambda value: type(value) in (int, float)
        return self._read(key, default, "a number", accepts, 0.0)

    def boolean(self, key: str, default: Optional[bool] = None) -> bool:
        """True or false."""
        accepts = lambda value: isinstance(value, bool)
        return self._read(key, default, "true or false", accepts, False)

    def anything(self, key: str, default: Any = None) -> Any:
        """Whatever is there."""
        self._asked.add(key)
        return self._table.get(key, default)

    def wrong(self, path: str, message: str) -> None:
        """Tells what is wrong with the configuration, by key, as in `columns[2]`."""
        self._findings.append((path, message))

    def findings(self) -> List[Tuple[str, str]]:
        """All that is wrong, once everything has been read."""
        unknown = [(key, "unknown key") for key in self._table if key not in self._asked]
        return self._findings + unknown

    def _read(
        self, key: str, default: Optional[T], what: str, accepts: Callable[[Any], bool], nothing: T
    ) -> T:
        self._asked.add(key)
        if key not in self._table:
            if default is None:
                self.wrong(key, "missing")
            return nothing if default is None else default
        value: T = self._table[key]
        if accepts(value):
            return value
        self.wrong(key, f"must be {what}")
        return nothing
