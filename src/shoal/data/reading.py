"""Populations from CSV and Parquet files: into memory, or into a folder without ever holding them in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from shoal.data.files import CsvSource, ParquetSource
from shoal.data.meaning import Meaning
from shoal.data.population import Population
from shoal.data.scatter import Arrays, Buckets, Clients, count, scatter
from shoal.data.store import column_file, new_folder, open_population, with_usable, write_index
from shoal.frames import Categories


def read_csv(
    path: str | Path,
    *,
    client: str,
    label: str | None = None,
    features: Sequence[str] | None = None,
    categories: Categories | None = None,
    delimiter: str = ",",
) -> Population:
    """A population from a CSV file: `client` names the column that says whose row it is.

    `label` names the column that becomes `y`. `features` are the other columns unless named; they become `x`, in
    order, in float64, with NaN where one is missing. A text column becomes numbers by `categories`, which has the
    texts that it may hold. DataError for a file, a column or a type that cannot be used. It needs pyarrow.

    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = Path(folder, "wards.csv").write_text("ward,age,ill\\na,61,1\\nb,47,0\\na,70,1\\n")
    ...     read_csv(Path(folder, "wards.csv"), client="ward", label="ill")
    Population of 2 clients, 3 examples (1 to 2 each): x float64 (1,), y int64
    """
    source = CsvSource(Path(path), delimiter=delimiter)
    return _read(Meaning.of(source, client, label, features, categories))


def read_parquet(
    path: str | Path,
    *,
    client: str,
    label: str | None = None,
    features: Sequence[str] | None = None,
    categories: Categories | None = None,
) -> Population:
    """A population from a Parquet file; everything as in `read_csv`."""
    return _read(Meaning.of(ParquetSource(Path(path)), client, label, features, categories))


def store_csv(
    path: str | Path,
    folder: str | Path,
    *,
    client: str,
    label: str | None = None,
    features: Sequence[str] | None = None,
    categories: Categories | None = None,
    delimiter: str = ",",
) -> Population:
    """The population of a CSV file, written into a new folder and opened there: for files larger than memory.

    All is as in `read_csv`; the folder is as by `save_population`. Memory holds a batch of rows, a part
    of the result (32 MB, or a 128th of it if that is more) and a few numbers for each client.
    """
    source = CsvSource(Path(path), delimiter=delimiter)
    return _store(Meaning.of(source, client, label, features, categories), folder)


def store_parquet(
    path: str | Path,
    folder: str | Path,
    *,
    client: str,
    label: str | None = None,
    features: Sequence[str] | None = None,
    categories: Categories | None = None,
) -> Population:
    """The population of a Parquet file, written into a new folder and opened there; everything as in `store_csv`."""
    return _store(Meaning.of(ParquetSource(Path(path)), client, label, features, categories), folder)


def _read(meaning: Meaning) -> Population:
    with tempfile.SpooledTemporaryFile(2**26) as owners:
        clients = count(meaning, owners)
        rows = int(clients.offsets[-1])
        columns = {name: np.empty((rows, *shape), dtype) for name, (shape, dtype) in _columns(meaning, clients).items()}
        usable = scatter(meaning, clients, owners, Arrays(columns))
    return with_usable(Population(clients.names, columns, clients.offsets), usable)


def _store(meaning: Meaning, folder: str | Path) -> Population:
    with new_folder(folder) as place, ExitStack() as files:

        def temporary() -> Any:
            return files.enter_context(tempfile.TemporaryFile(dir=place))

        owners = temporary()
        clients = count(meaning, owners)
        columns = _columns(meaning, clients)
        buckets = Buckets(int(clients.offsets[-1]), columns, temporary)
        usable = scatter(meaning, clients, owners, buckets)
        outputs = {
            name: files.enter_context(column_file(place, number).open("wb")) for number, name in enumerate(columns)
        }
        buckets.write(outputs)
        write_index(place, clients.names, list(columns), clients.offsets, usable)
    return open_population(folder)


def _columns(meaning: Meaning, clients: Clients) -> dict[str, tuple[tuple[int, ...], Any]]:
    """The shape of a row of each column, and its dtype."""
    y = {} if clients.label is None else {"y": ((), clients.label)}
    return {"x": ((len(meaning.features),), np.float64), **y}
