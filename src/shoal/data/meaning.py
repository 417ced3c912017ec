"""What the columns of a file mean: whose a row is, its label, its features, and what each is read as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shoal.data.files import Source
from shoal.errors import DataError
from shoal.extras import needed
from shoal.frames import Categories, chosen, not_numbers


@dataclass(frozen=True)
class Meaning:
    """A file, and what its columns mean; `types` are what they are read as. Made by `of`, which checks them."""

    source: Source
    client: str
    label: str | None
    features: Sequence[str]
    categories: Categories
    types: Mapping[str, Any]

    @staticmethod
    def of(
        source: Source,
        client: str,
        label: str | None,
        features: Sequence[str] | None,
        categories: Categories | None,
    ) -> Meaning:
        categories = {} if categories is None else categories
        present = list(source.types)
        features = chosen(present, client=client, label=label, features=features, categories=categories)
        labels = [] if label is None else [label]
        types = {
            name: source.readable(name, text=name == client or name in categories)
            for name in (client, *labels, *features)
        }
        plain = {name: types[name] for name in (*features, *labels) if name not in categories}
        if wrong := {name: found for name, found in plain.items() if not _is_number(found)}:
            labelled = label in wrong and len(wrong) == 1
            raise DataError(_label_is_text(label, wrong) if labelled else not_numbers(wrong))
        if not _is_number(types[client]) and not _is_text(types[client]):
            raise DataError(f"column {client!r} names clients by texts or whole numbers, and it holds {types[client]}")
        return Meaning(source, client, label, features, categories, types)

    def only(self, *names: str | None) -> dict[str, Any]:
        """The types of some columns."""
        return {name: self.types[name] for name in names if name is not None}


def _is_number(found: Any) -> bool:
    types = needed("pyarrow", "arrow").types
    return any(is_one(found) for is_one in (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal,
                                            types.is_null))  # fmt: skip


def _is_text(found: Any) -> bool:
    types = needed("pyarrow", "arrow").types
    if types.is_dictionary(found):
        found = found.value_type
    return types.is_string(found) or types.is_large_string(found)


def _label_is_text(label: str | None, wrong: Mapping[str, Any]) -> str:
    return (
        f"labels are numbers, and {label!r} is not (found: {wrong[str(label)]}): give the texts that it may hold as "
        f"categories={{{label!r}: [text, ...]}}, which makes them numbers"
    )
