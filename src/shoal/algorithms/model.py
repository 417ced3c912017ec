"""What an algorithm asks of a model, and what it tells it about training on a client."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from jaxtyping import Float

from shoal.algorithms.protocol import Metrics
from shoal.errors import SettingError
from shoal.examples import Examples
from shoal.key import Key
from shoal.optimizers import Optimizer
from shoal.vector import Array, Layout, Vector


class Correction(Protocol):
    """A rule that changes the gradient of a client's step: arithmetic on one array at a time."""

    def __call__(self, gradient: Array, weights: Array, start: Array) -> Array:
        """The gradient to use, from the client's own, its weights now, and the weights it was sent."""
        ...


@dataclass(frozen=True)
class Training:
    """How a client trains the model it was sent.

    `epochs` passes over its examples, or exactly `steps` optimizer steps. A batch has `batch_size` examples,
    or "all" of the client's; None is the model's own choice. Each epoch is "shuffled" anew, or goes through
    the examples in the order "given".
    """

    optimizer: Optimizer | None = None
    epochs: int = 1
    steps: int | None = None
    batch_size: int | Literal["all"] | None = None
    order: Literal["shuffled", "given"] = "shuffled"
    correction: Correction | None = None

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise SettingError(f"a client trains for at least one epoch, not {self.epochs}")
        if self.steps is not None and self.steps < 1:
            raise SettingError(f"a client takes at least one step, not {self.steps}")
        if isinstance(self.batch_size, str) and self.batch_size != "all":
            raise SettingError(f"a batch size is a number or 'all', not {self.batch_size!r}")
        if isinstance(self.batch_size, int) and self.batch_size < 1:
            raise SettingError(f"a batch has at least one example, not {self.batch_size}")
        if self.order not in ("shuffled", "given"):
            raise SettingError(f"the order of examples is 'shuffled' or 'given', not {self.order!r}")


@dataclass(frozen=True)
class Trained:
    """What training changed: the new weights minus those sent; and what was measured on the way."""

    update: Vector
    metrics: Metrics


class Model(Protocol):
    """A model of some framework, as a vector with a layout and four functions.

    `additive` models are made of counts and sums over examples: their update is added, not averaged.
    `traceable` ones are JAX code.
    """

    @property
    def layout(self) -> Layout:
        """The arrays of the model."""
        ...

    @property
    def traceable(self) -> bool:
        """Whether `train` is JAX code."""
        ...

    @property
    def additive(self) -> bool:
        """Whether updates are to be summed."""
        ...

    def check(self, data: Examples) -> None:
        """DataError if the model cannot learn from such examples."""
        ...

    def accept(self, training: Training) -> None:
        """UnsupportedError if the model cannot be trained like this."""
        ...

    def init(self, key: Key) -> Vector:
        """The weights before the first round."""
        ...

    def train(self, vector: Vector, data: Examples, *, training: Training, round: Any, key: Key) -> Trained:
        """Trains on one client's examples, starting from `vector`."""
        ...

    def measure(self, vector: Vector, columns: Mapping[str, Array]) -> Mapping[str, Float[Array, " rows"]]:
        """Every metric of every row."""
        ...
