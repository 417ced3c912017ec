"""The losses of `shoal.models.losses` for torch: the same numbers, the same checks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from shoal.errors import SettingError
from shoal.extras import needed
from shoal.models.losses import BinaryCrossEntropy, CrossEntropy, Custom, Loss, LossName, SquaredError

torch = needed("torch", "torch")
functional = needed("torch.nn.functional", "torch")

Tensor = Any


class TorchLoss(Protocol):
    """A loss of one example at a time, and its mean, which is all that training needs."""

    @property
    def alike(self) -> Loss:
        """The same loss for JAX models. It knows which labels make sense, and what outputs say."""
        ...

    def labels(self, labels: Tensor) -> Tensor:
        """Labels in the dtype that this loss reads."""
        ...

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean loss of the rows."""
        ...

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of every row."""
        ...

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Further metrics of every row."""
        ...


@dataclass(frozen=True)
class TorchCrossEntropy:
    """Softmax cross-entropy; where a row has several labels, their mean."""

    @property
    def alike(self) -> Loss:
        """The same for JAX models."""
        return CrossEntropy()

    def labels(self, labels: Tensor) -> Tensor:
        """Whole numbers."""
        return labels.long()

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """Rows have equally many labels, so the mean of rows is the mean of labels."""
        if labels.ndim == 1:
            return functional.cross_entropy(outputs, labels)
        return functional.cross_entropy(outputs.flatten(0, -2), labels.flatten())

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """log(sum(exp(outputs))) - outputs[label]."""
        losses = functional.cross_entropy(outputs.flatten(0, -2), labels.flatten(), reduction="none")
        return _by_row(losses.view(labels.shape))

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy."""
        return {"accuracy": _by_row((outputs.argmax(-1) == labels).float())}


@dataclass(frozen=True)
class TorchBinaryCrossEntropy:
    """Logistic loss of one log-odds a row."""

    @property
    def alike(self) -> Loss:
        """The same for JAX models."""
        return BinaryCrossEntropy()

    def labels(self, labels: Tensor) -> Tensor:
        """0.0 or 1.0."""
        return labels.float()

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean of the rows."""
        return functional.binary_cross_entropy_with_logits(outputs.reshape(labels.shape), labels)

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """softplus(z) - z * label."""
        return functional.binary_cross_entropy_with_logits(outputs.reshape(labels.shape), labels, reduction="none")

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy."""
        return {"accuracy": ((outputs.reshape(labels.shape) > 0) == labels).float()}


@dataclass(frozen=True)
class TorchSquaredError:
    """Half the squared difference; where a row has several numbers, their mean."""

    @property
    def alike(self) -> Loss:
        """The same for JAX models."""
        return SquaredError()

    def labels(self, labels: Tensor) -> Tensor:
        """Numbers."""
        return labels.float()

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean of the rows."""
        return 0.5 * functional.mse_loss(outputs.reshape(labels.shape), labels)

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """(output - label)^2 / 2."""
        return _by_row(0.5 * (outputs.reshape(labels.shape) - labels).square())

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The absolute error."""
        return {"absolute error": _by_row((outputs.reshape(labels.shape) - labels).abs())}


@dataclass(frozen=True)
class TorchCustom:
    """A function of outputs and labels, torch tensors, that gives the loss of every row."""

    function: Callable[[Tensor, Tensor], Tensor]

    @property
    def alike(self) -> Loss:
        """A loss of which nothing is known."""
        return Custom(self.function)

    def labels(self, labels: Tensor) -> Tensor:
        """As they are."""
        return labels

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean of the rows."""
        return self.rows(outputs, labels).mean()

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The function's; SettingError if it is not one number for each row."""
        losses = self.function(outputs, labels)
        if not isinstance(losses, torch.Tensor) or tuple(losses.shape) != (len(labels),):
            came = tuple(losses.shape) if isinstance(losses, torch.Tensor) else f"a {type(losses).__name__}"
            raise SettingError(f"a loss gives one number for each of {len(labels)} rows, not {came}")
        return losses

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """None."""
        return {}


_LOSSES: dict[str, TorchLoss] = {
    "cross_entropy": TorchCrossEntropy(),
    "binary_cross_entropy": TorchBinaryCrossEntropy(),
    "squared_error": TorchSquaredError(),
}


def torch_loss(of: LossName | Callable[[Tensor, Tensor], Tensor]) -> TorchLoss:
    """The loss of a name, or one made of a function of outputs and labels.

    >>> torch_loss("squared_error").alike
    SquaredError()
    """
    if callable(of):
        return TorchCustom(of)
    if of not in _LOSSES:
        raise SettingError(f"a loss is a function or one of {', '.join(_LOSSES)}, not {of!r}")
    return _LOSSES[of]


def _by_row(values: Tensor) -> Tensor:
    return values if values.ndim == 1 else values.flatten(1).mean(1)
