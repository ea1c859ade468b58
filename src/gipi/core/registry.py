"""Registries: explicit tuples of records, open to other packages through entry points.

A registry buys a name three things: it can be typed, it is listed by ``gipi list``, and its
citation reaches the report. Nothing is found by scanning; a package outside gipi adds records with
an entry point of the group ``gipi.<kind>`` (for instance ``gipi.models``) that names a `Record`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from gipi.core.errors import UnknownName, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@dataclass(frozen=True)
class Record:
    """One registered thing: its name, what builds it, one line about it and its source.

    Further names by which it may be asked for stand in ``facts["aliases"]``.
    """

    name: str
    build: Callable[..., Any]
    summary: str
    citation: str = ""
    tags: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)


class Registry:
    """The records of one kind, in the order in which they are taught."""

    def __init__(self, kind: str, records: tuple[Record, ...]) -> None:
        self.kind = kind
        self._records = {record.name: record for record in records}
        self._plugins_read = False

    def _all(self) -> dict[str, Record]:
        if not self._plugins_read:
            self._plugins_read = True
            for point in entry_points(group=f"gipi.{self.kind}"):
                record = point.load()
                self._records.setdefault(record.name, record)
        return self._records

    def __iter__(self) -> Iterator[Record]:
        return iter(self._all().values())

    def __contains__(self, name: object) -> bool:
        return name in self._all() or name in self.aliases()

    def names(self) -> list[str]:
        """Return every registered name."""
        return list(self._all())

    def aliases(self) -> dict[str, str]:
        """Return every further name with the name that it stands for."""
        return {a: r.name for r in self for a in r.facts.get("aliases", ())}

    def get(self, name: str) -> Record:
        """Return the record called `name`; raise `UnknownName` with the nearest name."""
        records = self._all()
        if name not in records and name in (aliases := self.aliases()):
            return records[aliases[name]]
        if name not in records:
            one = self.kind.removesuffix("es" if self.kind.endswith("sses") else "s")
            raise UnknownName(
                f"no {one} is called '{name}'",
                f"a name that `gipi list {self.kind}` prints",
                did_you_mean(name, [*records, *self.aliases()]),
            )
        return records[name]
