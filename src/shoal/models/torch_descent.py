"""Gradient descent on one client's examples, in torch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from shoal.algorithms.model import Correction, Training
from shoal.errors import RunError, ShoalError
from shoal.extras import needed
from shoal.models.descent import BATCH
from shoal.models.torch_flat import Flat
from shoal.models.torch_losses import TorchLoss
from shoal.models.torch_optimizers import Rule, Step, own

torch = needed("torch", "torch")

Tensor = Any
Factory = Callable[[list[Any]], Any]

_CHUNK = 256  # rows of a whole-client gradient that are held at once


class Descent:
    """Trains one client after another in the same flat module."""

    def __init__(self, flat: Flat, loss: TorchLoss, training: Training, factory: Factory | None) -> None:
        self.flat = flat
        self._mean, self._training, self._factory = loss.mean, training, factory
        self._gradient = torch.zeros_like(flat.weights)
        norms = torch.nn.modules.batchnorm._BatchNorm
        self._normalises = any(isinstance(module, norms) for module in flat.module.modules())
        # Asked for outright, because the default is made anew at each step.
        self._one = torch.ones((), dtype=torch.float32, device=flat.vector.device)

    def train(self, start: Tensor, x: Tensor, y: Tensor, *, rule: Rule, seed: int) -> tuple[float, int]:
        """Trains from `start`; the flat vector then holds the new weights. Returns the loss summed over the rows
        seen, and their number; RunError if the module fails.

        Shuffles and dropout draw from torch's own generators, which are seeded here: put them back afterwards
        (see `undisturbed`).
        """
        try:
            return self._descend(start, x, y, rule, seed)
        except ShoalError:
            raise
        except Exception as error:  # the module is the user's own code
            raise RunError(f"the module failed in training: {first_line(error)}") from error

    def _descend(self, start: Tensor, x: Tensor, y: Tensor, rule: Rule, seed: int) -> tuple[float, int]:
        self.flat.load(start)
        _seed(seed, start)
        step = self._step(rule, start[: len(self.flat.weights)])
        total, seen = 0.0, 0
        for rows, labels in batches(x, y, self._training):
            if self._training.batch_size == "all":
                loss, gradients = self._whole(rows, labels)
            else:
                measured = self._batch(rows, labels)
                if measured is None:
                    continue
                loss, gradients = measured
            step(gradients)
            count = labels.shape[0]  # len() of a tensor is Python code, and slow
            total += loss * count
            seen += count
        self.flat.settle()
        return total, seen

    def _batch(self, x: Tensor, y: Tensor) -> tuple[float, Any] | None:
        """The mean loss of a batch and its gradients; None for a single row that batch normalisation refuses."""
        try:
            loss = self._mean(self.flat.module(x), y)
        except ValueError:
            if self._normalises and y.shape[0] == 1:
                return None
            raise
        gradients = torch.autograd.grad(loss, self.flat.parameters, self._one, materialize_grads=True)
        return loss.item(), gradients

    def _whole(self, x: Tensor, y: Tensor) -> tuple[float, Any]:
        """The mean loss and gradients over all rows, added up over parts of them."""
        totals = [torch.zeros_like(view) for view in self.flat.views]
        total = 0.0
        for rows, labels in zip(x.split(_CHUNK), y.split(_CHUNK), strict=True):
            measured = self._batch(rows, labels)
            if measured is not None:
                share = len(labels) / len(y)
                torch._foreach_add_(totals, measured[1], alpha=share)
                total += measured[0] * share
        return total, totals

    def _step(self, rule: Rule, start: Tensor) -> Callable[[Any], None]:
        """What a client does with the gradients of a batch, one for each parameter."""
        correction = self._training.correction
        views, rate = self.flat.views, rule.rate
        if self._factory is None and correction is None and rate is not None:
            return lambda gradients: torch._foreach_add_(views, gradients, alpha=-rate)
        weights, joined = self.flat.weights, self._gradient
        move: Step = rule.start(weights) if self._factory is None else own(self._factory, weights)

        def step(gradients: Any) -> None:
            torch.cat([gradient.reshape(-1) for gradient in gradients], out=joined)
            move(joined if correction is None else corrected(correction, joined, weights, start))

        return step


def corrected(correction: Correction, gradient: Tensor, weights: Tensor, start: Tensor) -> Tensor:
    """The gradient that a rule makes of a client's own: the same arithmetic as for JAX models."""
    given: Any = correction
    return given(gradient, weights, start)


def batches(x: Tensor, y: Tensor, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    """Every batch of a client's training, in order: `epochs` passes, or so many steps."""
    if training.steps is None:
        for _ in range(training.epochs):
            yield from _epoch(x, y, training)
        return
    endless = itertools.chain.from_iterable(_epoch(x, y, training) for _ in itertools.count())
    yield from itertools.islice(endless, training.steps)


def _epoch(x: Tensor, y: Tensor, training: Training) -> Iterator[tuple[Tensor, Tensor]]:
    width = len(y) if training.batch_size == "all" else int(training.batch_size or BATCH)
    if width >= len(y):
        return iter([(x, y)])
    if training.order == "shuffled":
        order = torch.randperm(len(y)).to(y.device)
        x, y = x[order], y[order]
    return zip(x.split(width), y.split(width), strict=True)


def _seed(seed: int, like: Tensor) -> None:
    torch.default_generator.manual_seed(seed)
    if like.is_cuda:
        torch.cuda.manual_seed(seed)


class undisturbed:  # noqa: N801 (used as a function)
    """While it lasts, torch draws numbers of ours and, if asked, computes in one thread; then all is as before."""

    def __init__(self, *, one_thread: bool) -> None:
        self._one_thread = one_thread

    def __enter__(self) -> None:
        self._state = torch.get_rng_state()
        self._modes = torch.inference_mode(False), torch.enable_grad()
        for mode in self._modes:
            mode.__enter__()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._threads = torch.get_num_threads()
        if self._one_thread:
            torch.set_num_threads(1)

    def __exit__(self, *_: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(None, None, None)
        torch.set_rng_state(self._state)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        if self._one_thread:
            torch.set_num_threads(self._threads)


def first_line(error: Exception) -> str:
    """An error of somebody else's code in one line."""
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
