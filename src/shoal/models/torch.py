"""torch modules as federated models."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float

from shoal.algorithms.model import Trained, Training
from shoal.describe import describe
from shoal.errors import DataError, SettingError
from shoal.examples import Examples
from shoal.extras import needed
from shoal.key import Key
from shoal.models.losses import LossName
from shoal.models.torch_descent import Descent, first_line, undisturbed
from shoal.models.torch_flat import Flat, check_module, layout_of, vector_of
from shoal.models.torch_losses import TorchLoss, torch_loss
from shoal.models.torch_optimizers import check_factory, rule
from shoal.models.torch_rows import inputs, labels, tensor
from shoal.models.torch_twin import Twin
from shoal.vector import Array, Layout, Vector

torch = needed("torch", "torch")

_ROWS = 256  # rows that are measured at once


@dataclass(frozen=True, eq=False)
class TorchModel:
    """A torch module with the loss that trains it; it reads the columns `x` and `y`.

    What travels is one vector of the parameters that are trained, then the buffers of running statistics
    (batch normalisation's). Frozen parameters, whole numbers and buffers that are not saved stay as they are.
    A batch of a single row, which batch normalisation refuses, is skipped.
    """

    module: Any
    loss: TorchLoss
    optimizer: Callable[[list[Any]], Any] | None = None
    x: str = field(default="x", kw_only=True)
    y: str = field(default="y", kw_only=True)

    engine: ClassVar[str] = "torch"
    """Which runtime `simulate` takes for it."""

    @property
    def traceable(self) -> bool:
        """False: it is Python."""
        return False

    @property
    def additive(self) -> bool:
        """False: updates are averaged."""
        return False

    @cached_property
    def device(self) -> str:
        """Where the module computes: "cuda" if there is one, else "cpu"."""
        return "cuda" if torch.cuda.is_available() else "cpu"

    @cached_property
    def _first(self) -> Any:
        """The module before any training."""
        if isinstance(self.module, torch.nn.Module):
            return self.module
        return _made(self.module, 0)

    @cached_property
    def flat(self) -> Flat:
        """The one module that all clients of this process are trained in, one after another."""
        return Flat(self._first, self.device)

    @property
    def layout(self) -> Layout:
        """One part for each array that travels, named as in the module."""
        return self._layout

    @cached_property
    def _layout(self) -> Layout:
        return layout_of(self._first)

    @property
    def statistics(self) -> tuple[str, ...]:
        """The running statistics that travel with the weights, by name."""
        return tuple(part.name for part in self.layout.parts[len(self.flat.parameters) :])

    def accept(self, training: Training) -> None:
        """UnsupportedError for an optimizer that is not there for torch; SettingError for two of them."""
        if self.optimizer is not None and training.optimizer is not None:
            raise SettingError("the model brings an optimizer factory: leave client_optimizer out, or the factory")
        rule(training.optimizer, 0)

    def check(self, data: Examples) -> None:
        """DataError if a column is missing, the module does not take the rows, or a label makes no sense."""
        rows, answers = data.rows(self.x), data.rows(self.y)
        if isinstance(self.module, Twin):
            self.module.check(rows)
        try:
            outputs = self._applied(rows[:1], self.flat.vector)
        except Exception as error:  # the module is the user's own code
            raise DataError(
                f"rows of {self.x!r} have shape {rows.shape[1:]} and dtype {rows.dtype}, which this module does not "
                f"take: {first_line(error)}"
            ) from error
        if not isinstance(outputs, torch.Tensor) or len(outputs) != len(rows[:1]):
            raise DataError("a module gives one tensor of outputs, with a row for each row of its input")
        self.loss.alike.check(answers, tuple(outputs.shape[1:]) or (1,))
        if len(rows):
            self.loss.rows(outputs, labels(answers[:1], self.loss, self.device))

    def init(self, key: Key) -> Vector:
        """The weights that the module had when it was given; of a function that makes one, fresh ones."""
        if isinstance(self.module, torch.nn.Module):
            return vector_of(self.module).numpy()
        if isinstance(self.module, Twin):
            return self.module.start(key)
        made = _made(self.module, key.integer())
        if layout_of(made) != self.layout:
            raise SettingError("the function makes modules of different shapes: it must make the same each time")
        return vector_of(made).numpy()

    def train(self, vector: Vector, data: Examples, *, training: Training, round: Any, key: Key) -> Trained:
        """Gradient descent on the mean loss of the client's batches."""
        if not data.usable or not data.count:  # the client is rejected whatever comes of it
            return Trained(np.zeros_like(np.asarray(vector)), {"loss": np.zeros(2, np.float32)})
        x, y = inputs(data.rows(self.x), self.device), labels(data.rows(self.y), self.loss, self.device)
        start = tensor(np.array(vector)).to(self.device)
        descent = self.descent(training)
        with undisturbed(one_thread=True):
            seed = int(key.low)
            total, seen = descent.train(start, x, y, rule=rule(training.optimizer, round), seed=seed)
        update = (self.flat.vector - start).cpu().numpy()
        return Trained(update, {"loss": np.array([total, seen], np.float32)})

    def descent(self, training: Training) -> Descent:
        """What trains clients in this model's flat module."""
        return Descent(self.flat, self.loss, training, self.optimizer)

    def fitted(self, vector: Vector) -> Any:
        """A torch module that is this model, in evaluation mode: it predicts, trains on, and can be saved.

        >>> model = from_torch(torch.nn.Linear(2, 1), loss="squared_error")
        >>> model.fitted(np.zeros(3, np.float32)).bias
        Parameter containing:
        tensor([0.], requires_grad=True)
        """
        module = copy.deepcopy(self._first)
        state = module.state_dict(keep_vars=True)
        with torch.no_grad():
            for name, array in self.layout.unflatten(np.array(vector)).items():
                state[name].copy_(tensor(array))
        return module.eval()

    def measure(self, vector: Vector, columns: Mapping[str, Array]) -> Mapping[str, Float[Array, " rows"]]:
        """The loss and its metrics for every row."""
        found: list[dict[str, Any]] = []
        start = tensor(np.array(vector))
        x, y = np.asarray(columns[self.x]), np.asarray(columns[self.y])
        for i in range(0, len(y), _ROWS):
            outputs = self._applied(x[i : i + _ROWS], start)
            answers = labels(y[i : i + _ROWS], self.loss, self.device)
            rows = {"loss": self.loss.rows(outputs, answers), **self.loss.metrics(outputs, answers)}
            found.append({name: row.cpu().numpy() for name, row in rows.items()})
        return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

    def outputs(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """What the module says of every row: scores, log-odds or numbers."""
        start, x = tensor(np.array(vector)), np.asarray(x)
        parts = [self._applied(x[i : i + _ROWS], start).cpu().numpy() for i in range(0, max(len(x), 1), _ROWS)]
        return np.concatenate(parts)

    def predict(self, vector: Vector, x: Array) -> np.ndarray[Any, Any]:
        """The label, or the number, of every row."""
        return np.asarray(self.loss.alike.predict(self.outputs(vector, x)))

    def _applied(self, rows: np.ndarray[Any, Any], vector: Any) -> Any:
        """The outputs for some rows, as in evaluation: no dropout, running statistics used and not changed."""
        self.flat.load(vector)
        self.flat.module.eval()
        try:
            with torch.no_grad():
                return self.flat.module(inputs(rows, self.device))
        finally:
            self.flat.module.train()

    def describe(self) -> Any:
        """What tells this model apart: its classes and their settings, and every number before training."""
        hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        parts: dict[str, Any] = {}
        for name, module in self._first.named_modules():
            held = {k: v for k, v in vars(module).items() if not k.startswith("_") and k != "training"}
            tensors = {k: v.detach().cpu().numpy() for k, v in held.items() if isinstance(v, torch.Tensor)}
            ways = {hook: list(getattr(module, hook).values()) for hook in hooks if getattr(module, hook)}
            parts[name] = describe([type(module), {**held, **tensors}, ways])
        arrays = [*self._first.named_parameters(), *self._first.named_buffers()]
        numbers = {name: array.detach().cpu().numpy() for name, array in arrays}
        trained = [name for name, p in self._first.named_parameters() if p.requires_grad]
        made_by = None if isinstance(self.module, torch.nn.Module) else describe(self.module)
        return {
            "is": "shoal.TorchModel", "modules": parts, "numbers": describe(numbers), "trained": list(trained),
            "made by": made_by, "loss": describe(self.loss), "optimizer": describe(self.optimizer),
            "x": self.x, "y": self.y,
        }  # fmt: skip


def from_torch(
    module: Any,
    *,
    loss: LossName | Callable[[Any, Any], Any],
    optimizer: Callable[[list[Any]], Any] | None = None,
    x: str = "x",
    y: str = "y",
) -> TorchModel:
    """A model from a torch module, or from a function without arguments that makes one.

    A module's weights now are where every run starts; what a function makes starts with the run's own seed.
    `loss` is a name, or a function of outputs and labels that gives the loss of every row. `optimizer`, if
    given, makes a torch optimizer of a list of parameters, and each client trains with a fresh one; else the
    algorithm's `client_optimizer` does.

    >>> from_torch(torch.nn.Linear(13, 2), loss="cross_entropy").layout.size
    28
    """
    made = _made(module, 0) if not isinstance(module, torch.nn.Module) else module
    check_module(made)
    if optimizer is not None:
        check_factory(optimizer)
    kept = copy.deepcopy(module).cpu() if isinstance(module, torch.nn.Module) else module
    return TorchModel(kept, torch_loss(loss), optimizer, x=x, y=y)


def _made(factory: Any, seed: int) -> Any:
    """The module that a function makes, its weights drawn with a seed."""
    if not callable(factory):
        raise SettingError(
            "a torch model is made of an nn.Module, or of a function without arguments that makes one, not of a "
            f"{type(factory).__name__}"
        )
    with undisturbed(one_thread=False):
        torch.manual_seed(seed)
        module = factory()
    if not isinstance(module, torch.nn.Module):
        raise SettingError(f"the function makes a {type(module).__name__}, and an nn.Module is wanted")
    return module
