"""The SQL that a store runs, by name: one file each, written for SQLite and PostgreSQL alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from typing import Any

from shoal.errors import StoreError

PARAMETER = re.compile(r"(?<![:\w]):([a-z_]+)")


@dataclass(frozen=True)
class Query:
    """A named statement. Parameters are written `:name`."""

    name: str
    text: str

    @cached_property
    def parameters(self) -> frozenset[str]:
        """The names of what it is given."""
        return frozenset(PARAMETER.findall(self.text))

    @cached_property
    def reads(self) -> bool:
        """True for a statement that changes nothing."""
        return self.text.startswith("SELECT")

    @cached_property
    def for_postgres(self) -> str:
        """The statement as psycopg wants it."""
        return PARAMETER.sub(r"%(\1)s", self.text.replace("%", "%%"))


def checked(name: str, given: Mapping[str, Any], *, reads: bool) -> Query:
    """The query of a name that is given exactly what it takes; else StoreError. It reads, or it writes, as asked."""
    query = QUERIES.get(name)
    if query is None or query.reads is not reads:
        kind = "reads" if reads else "writes"
        raise StoreError(f"no query that {kind} is named {name!r}: they are the files in shoal/store/queries")
    if query.parameters != given.keys():
        raise StoreError(
            f"the query {name} takes {', '.join(sorted(query.parameters)) or 'nothing'}; "
            f"it was given {', '.join(sorted(given)) or 'nothing'}"
        )
    return query


def statements(schema: str, *, types: Mapping[str, str]) -> list[str]:
    """The statements of a file of the schema, with a dialect's types in the places of `{blob}` and the like."""
    for place, kind in types.items():
        schema = schema.replace("{" + place + "}", kind)
    return [statement.strip() for statement in schema.split(";") if statement.strip()]


def schema_file(name: str) -> str:
    """A file of the schema."""
    return (files("shoal.store") / "schema" / name).read_text("utf-8")


def _loaded() -> dict[str, Query]:
    folder = files("shoal.store") / "queries"
    names = sorted(file.name.removesuffix(".sql") for file in folder.iterdir() if file.name.endswith(".sql"))
    return {name: Query(name, (folder / f"{name}.sql").read_text("utf-8").strip()) for name in names}


def _migrations() -> tuple[str, ...]:
    folder = files("shoal.store") / "schema"
    numbered = sorted(file.name for file in folder.iterdir() if re.fullmatch(r"\d{4}\.sql", file.name))
    return tuple(schema_file(name) for name in numbered)


QUERIES: Mapping[str, Query] = _loaded()

MIGRATIONS = _migrations()
"""What makes a store of version n + 1 of one of version n, in order. A store that is empty has version 0."""
