"""Checkpoints: a run on disk, whole or not at all, restored to the bit.

A safetensors file: arrays by number and a JSON header with the format's version, the plan's digest, the seed
and the history. No code and no pickle. The arrays are the leaves of the run and of the clients' states, in
the order of a tree that the plan itself rebuilds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from shoal.errors import CheckpointError
from shoal.whole_file import check_place, write_whole

VERSION = "1"


@dataclass(frozen=True)
class Checkpoint:
    """A file that holds one run: `identity` says which, by name and digest."""

    path: Path
    identity: Mapping[str, str]

    def prepare(self) -> None:
        """CheckpointError if nothing could be written here, before hours of work depend on it."""
        try:
            check_place(self.path)
        except IsADirectoryError as error:
            raise CheckpointError(f"{self.path} is a folder: name a file for the checkpoint") from error
        except OSError as error:
            raise CheckpointError(f"nothing can be written to {self.path.parent}: {error.strerror}") from error

    def save(self, tree: Any, rows: list[dict[str, Any]]) -> None:
        """Writes a tree of arrays and the history so far; the old file stays until the new one is whole."""
        arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))}
        metadata = {**self._header(), "history": json.dumps(rows)}
        try:
            write_whole(self.path, save(arrays, metadata), mode=0o600)  # it holds what clients remember
        except OSError as error:
            raise CheckpointError(f"{self.path} could not be written: {error.strerror}") from error

    def load(self, like: Any) -> tuple[Any, list[dict[str, Any]]] | None:
        """The tree and the history that were saved, in the shape of `like`; None if there is no file.

        CheckpointError if the file cannot be read, or belongs to another plan, seed or population.
        """
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "numpy") as file:
                metadata, names = file.metadata() or {}, list(file.keys())
                arrays = {name: file.get_tensor(name) for name in names}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{self.path} is not a checkpoint that can be read: {error}") from error
        self._check(metadata)
        leaves, tree = jax.tree.flatten(like)
        loaded = [arrays.get(str(i)) for i in range(len(leaves))]
        if len(arrays) != len(leaves) or any(
            a is None or a.shape != np.shape(leaf) for a, leaf in zip(loaded, leaves, strict=True)
        ):
            raise CheckpointError(f"{self.path} holds other arrays than this plan has: start with a new file")
        return jax.tree.unflatten(tree, loaded), json.loads(metadata["history"])

    def _header(self) -> dict[str, str]:
        return {"format": f"shoal checkpoint {VERSION}", **self.identity}

    def _check(self, metadata: dict[str, str]) -> None:
        for name, wanted in self._header().items():
            found = metadata.get(name)
            if found != wanted:
                raise CheckpointError(
                    f"{self.path} is of another {name} ({_short(found)}, wanted {_short(wanted)}): "
                    "resume it with what it was begun with, or start with a new file"
                )


def _short(text: str | None) -> str:
    return "none" if text is None else text[:20]
