"""From a round's sum to the next model: the third move, between blobs."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from shoal.aggregation import Bag, Payload
from shoal.algorithms import Algorithm, Run, close_round, enter, open_round, silence, start
from shoal.algorithms.evaluation import VectorElsewhere
from shoal.errors import DivergedError, PlanError, UnsupportedError
from shoal.key import Key
from shoal.model_file import write_model
from shoal.noise.source import SecureNoise
from shoal.plan import Plan
from shoal.store.blob_store import BlobStore
from shoal.whole_file import write_whole
from shoal.wire.blobs import manifest_of
from shoal.wire.messages import Manifest
from shoal.wire.payloads import pack_tree, unpack_tree

Work = Algorithm[Any, Any, Any]


@dataclass(frozen=True)
class Model:
    """What the server holds between two rounds: the run. Its containers are made when they are wanted."""

    algorithm: Work
    run: Run[Any]

    def state(self) -> bytes:
        """The container of the run."""
        return pack_tree(self.run)

    def call(self) -> bytes:
        """The container of what clients are sent."""
        return pack_tree(jax.tree.map(np.asarray, open_round(self.algorithm, self.run)))


@dataclass(frozen=True)
class Outcome:
    """A closed round: the model after it, whether it changed, how many clients counted, and the metrics' means."""

    model: Model
    released: bool
    clients: int
    metrics: str


def first_model(algorithm: Work, seed: int) -> Model:
    """The model before the first round, as a simulation with this seed has it.

    UnsupportedError for a plan that measures a model which is not here.
    """
    if isinstance(getattr(algorithm, "vector", None), VectorElsewhere):
        raise UnsupportedError(
            "this plan measures a model and came without it: begin the run in the server's process, by its study file"
        )
    return _model(algorithm, start(algorithm, Key.from_seed(seed)))


def model_of(algorithm: Work, seed: int, state: bytes) -> Model:
    """The model from the container of its run; WireError if it is of another algorithm."""
    like = start(algorithm, Key.from_seed(seed))
    return _model(algorithm, unpack_tree(state, like))


def close(algorithm: Work, model: Model, total: Payload | Bag | None, *, seed: int, round: int) -> Outcome:
    """The model after a round, from its sum; DivergedError if it would not be finite.

    None is the sum of a round in which nobody took part. Noise is from the operating system, another at each call.
    """
    if total is None:
        total = silence(algorithm, open_round(algorithm, model.run))
    private = algorithm.aggregation.private
    noise: Any = SecureNoise() if private else Key.from_seed(seed).split("round", round).split("server")
    run, report = close_round(algorithm, model.run, total, noise)
    run, report = jax.tree.map(np.asarray, (run, report))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(run) if leaf.dtype.kind == "f"):
        raise DivergedError(
            f"the model is not finite after round {round + 1}: lower the learning rates, or clip contributions"
        )
    pairs = {name: pair for name, pair in report.metrics.items() if len(pair) == 2}  # a step's own notes are others
    metrics = {
        name: float(pair[0] / pair[1]) for name, pair in pairs.items() if pair[1] > 0 and np.isfinite(pair).all()
    }
    return Outcome(_model(algorithm, run), bool(report.released), int(report.clients), json.dumps(metrics))


def manifests(model: Model) -> tuple[Manifest, Manifest]:
    """The manifests of a model's two containers. One of them is in memory at a time."""
    return manifest_of(model.state()), manifest_of(model.call())


def keep(model: Model, blobs: BlobStore) -> None:
    """Makes a model's two containers blobs. One of them is in memory at a time."""
    blobs.put_bytes(model.state())
    blobs.put_bytes(model.call())


def remembers(algorithm: Work) -> bool:
    """Whether clients keep anything between rounds."""
    return bool(jax.tree.leaves(enter(algorithm)))


def _model(algorithm: Work, run: Run[Any]) -> Model:
    return Model(algorithm, jax.tree.map(np.asarray, run))


def write_model_file(path: Path, plan: Plan, model: Model) -> None:
    """Writes a model as safetensors; of an algorithm that trains none, the container of its state."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if getattr(plan.algorithm, "model", None) is not None:
        write_model(path, model.run.state.vector, plan=plan, round=int(model.run.round))
    else:
        write_whole(path, model.state())


def check_buffered(plan: Plan) -> None:
    """PlanError for a chain whose contributions cannot be weighted by their staleness."""
    aggregation = plan.algorithm.aggregation
    if not aggregation.meeting.adds or any(hasattr(step, "unit") for step in aggregation.steps):
        raise PlanError(f"{aggregation}: staleness weights need float sums: leave buffer out, or Quantize and Collect")
    if aggregation.adapting is not None:
        raise PlanError(
            f"{aggregation}: contributions are in units of their round's {aggregation.adapting.setting_name}, and a "
            "buffer adds up those of several rounds: leave buffer out, or use Clip"
        )
