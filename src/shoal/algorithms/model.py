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
from shoal.optimizers import Optimizer, check_optimizer
from shoal.settings import settle, whole
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
        if self.optimizer is not None:
            check_optimizer(self.optimizer, "client_optimizer")
        settle(self, epochs=whole(self.epochs, "a client trains for at least one epoch", least=1))
        if self.steps is not None:
            settle(self, steps=whole(self.steps, "a client takes at least one step", least=1))
        if self.batch_size not in (None, "all"):
            rule = "a batch size is 'all' or at least one example"
            settle(self, batch_size=whole(self.batch_size, rule, least=1))
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
