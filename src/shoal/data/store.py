"""A population in a folder: columns that are mapped into memory, so that opening a million clients reads none.

population.json    what this is, its version, and how much there should be
names.json         the clients' names, in order
offsets.npy        where each client's rows begin, and where the last one's end
usable.npy         which clients hold neither NaN nor infinity
column-0.npy ...   the columns, in NumPy's format, in the order in which population.json names them
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from shoal.data.population import Column, Population
from shoal.errors import DataError

VERSION = 1


def save_population(population: Population, folder: str | Path) -> Path:
    """Writes a population into a folder that is not there yet; `open_population` opens it.

    All or nothing: a folder that is there is complete. DataError if it exists already, or cannot be written.
    """
    with new_folder(folder) as place:
        for number, column in enumerate(population.columns.values()):
            np.save(column_file(place, number), column, allow_pickle=False)
        write_index(place, population.names, list(population.columns), population.offsets, population.usable)
    return Path(folder)


def open_population(folder: str | Path) -> Population:
    """The population in a folder. Its columns stay on disk, and only the rows that are used are read.

    DataError if the folder holds no population, only a part of one, or one of another version of this format.
    """
    folder = Path(folder)
    about = _header(folder)
    try:
        names = json.loads((folder / "names.json").read_bytes())
        offsets = _array(folder / "offsets.npy")
        usable = _array(folder / "usable.npy")
        columns = {name: _mapped(column_file(folder, number)) for number, name in enumerate(about["columns"])}
    except (OSError, ValueError, EOFError) as error:
        raise _broken(folder, f"a file is missing or damaged ({type(error).__name__})") from error
    _check(folder, about, names, offsets, usable, columns)
    return with_usable(Population(tuple(names), columns, offsets), usable)


def with_usable(population: Population, usable: Column) -> Population:
    """The population, which need not look at its rows any more to know who is usable."""
    usable.setflags(write=False)
    vars(population)["usable"] = usable  # where the cached property keeps it
    return population


def column_file(folder: Path, number: int) -> Path:
    """The file of a column in a population's folder."""
    return folder / f"column-{number}.npy"


def write_index(folder: Path, names: Sequence[str], columns: Sequence[str], offsets: Column, usable: Column) -> None:
    """Writes all that a population's folder holds beside its columns."""
    (folder / "names.json").write_text(json.dumps(list(names), separators=(",", ":")))
    np.save(folder / "offsets.npy", np.asarray(offsets, np.int64), allow_pickle=False)
    np.save(folder / "usable.npy", usable, allow_pickle=False)
    about = {
        "format": "shoal population", "version": VERSION, "clients": len(names), "examples": int(offsets[-1]),
        "columns": list(columns),
    }  # fmt: skip
    (folder / "population.json").write_text(json.dumps(about, indent=1))


@contextmanager
def new_folder(folder: str | Path) -> Generator[Path]:
    """A folder to write into, which gets its name when all is written, and is gone if something fails."""
    folder = Path(folder)
    if folder.exists():
        raise DataError(f"{folder} exists already, and nothing is overwritten: name a new folder, or remove it")
    if not folder.absolute().parent.is_dir():
        raise DataError(f"there is no folder {folder.parent} to put {folder.name} into")
    place: Path | None = None
    try:
        place = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".partial", dir=folder.absolute().parent))
        yield place
        place.rename(folder)
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from error
    finally:
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)  # it has another name by now, if all went well


def _header(folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: a population is saved in one, by shoal.save_population")
    try:
        about = json.loads((folder / "population.json").read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(folder, "it has no population.json that can be read") from error
    if not isinstance(about, dict) or about.get("format") != "shoal population":
        raise _broken(folder, "its population.json is of something else")
    if about.get("version") != VERSION:
        raise _broken(folder, f"its format has version {about.get('version')!r}, and this Shoal reads {VERSION}")
    if not _are_texts(about.get("columns")):
        raise _broken(folder, "its population.json lists no columns")
    return about


def _mapped(path: Path) -> Column:
    column = _array(path, mode="r")
    if column.dtype.kind not in "biuf":
        raise ValueError("columns hold numbers")
    return column


def _array(path: Path, *, mode: Literal["r"] | None = None) -> Column:
    array = np.load(path, mmap_mode=mode, allow_pickle=False)
    if not isinstance(array, np.ndarray):  # a zip archive of arrays under an array's name
        raise ValueError("a file holds one array")
    return array


def _check(
    folder: Path, about: Mapping[str, Any], names: Any, offsets: Column, usable: Column, columns: Mapping[str, Column]
) -> None:
    clients, examples = about.get("clients"), about.get("examples")
    kinds = offsets.dtype == np.int64 and usable.dtype == np.bool_
    if not (_are_texts(names) and kinds and (len(names),) == (clients,) == usable.shape):
        raise _broken(folder, "its files disagree about how many clients there are")
    if offsets.shape != (len(names) + 1,) or offsets[0] != 0 or offsets[-1] != examples or (np.diff(offsets) < 1).any():
        raise _broken(folder, "its clients' rows do not follow each other")
    if any(column.shape[:1] != (examples,) for column in columns.values()):
        raise _broken(folder, "its columns do not have a row for every example")


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in cast("list[Any]", values))


def _broken(folder: Path, why: str) -> DataError:
    return DataError(f"{folder} holds no population that can be opened: {why}")
