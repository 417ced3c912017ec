"""Equal and tiny clients in lockstep: one operation on the batches of all of them, by `torch.func`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

from shoal.algorithms.model import Training
from shoal.extras import needed
from shoal.models.descent import BATCH
from shoal.models.torch_flat import Flat, pieces
from shoal.models.torch_losses import TorchLoss
from shoal.models.torch_optimizers import Rule
from shoal.vector import Layout

torch = needed("torch", "torch")

Tensor = Any


class Lanes:
    """Trains clients that have equally many examples side by side.

    Only for modules that are nothing but parameters, and draw no random numbers: `vmap` refuses others.
    """

    def __init__(self, flat: Flat, layout: Layout, loss: TorchLoss, training: Training) -> None:
        self._training = training

        def mean(weights: Tensor, x: Tensor, y: Tensor) -> Tensor:
            return loss.mean(torch.func.functional_call(flat.module, pieces(weights, layout), (x,)), y)

        self._gradient = torch.func.vmap(torch.func.grad_and_value(mean))
        correction: Any = training.correction
        self._correct = None if correction is None else torch.func.vmap(correction, in_dims=(0, 0, None))

    def train(self, start: Tensor, x: Tensor, y: Tensor, *, rule: Rule, seeds: list[int]) -> tuple[Tensor, Tensor, int]:
        """What changed, one row a client; the loss of each summed over the rows it saw, and their number.

        `x` and `y` have a client's rows for each client. Shuffles draw from torch's own generator.
        """
        weights = start.expand(len(y), -1).clone()
        step = rule.start(weights)
        total = torch.zeros(len(y), dtype=torch.float64, device=start.device)
        seen = 0
        for rows, labels in self._batches(x, y, seeds):
            gradient, loss = self._gradient(weights, rows, labels)
            if self._correct is not None:
                gradient = self._correct(gradient, weights, start)
            step(gradient)
            total += loss * labels.shape[1]
            seen += labels.shape[1]
        return weights - start, total, seen

    def _batches(self, x: Tensor, y: Tensor, seeds: list[int]) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches that each client would see alone."""
        training, rows = self._training, y.shape[1]
        width = rows if training.batch_size == "all" else min(int(training.batch_size or BATCH), rows)
        parts = -(-rows // width)
        epochs = training.epochs if training.steps is None else -(-training.steps // parts)
        orders = None
        if training.order == "shuffled" and width < rows:
            orders = _orders(seeds, rows, epochs).to(y.device)
        every = itertools.chain.from_iterable(
            zip(*(_ordered(column, orders, epoch).split(width, dim=1) for column in (x, y)), strict=True)
            for epoch in range(epochs)
        )
        return itertools.islice(every, training.steps)


def _orders(seeds: list[int], rows: int, epochs: int) -> Tensor:
    """The order of each client's rows in each epoch, as `Descent` draws them."""
    orders = torch.empty((epochs, len(seeds), rows), dtype=torch.int64)
    for lane, seed in enumerate(seeds):
        torch.default_generator.manual_seed(seed)
        for epoch in range(epochs):
            orders[epoch, lane] = torch.randperm(rows)
    return orders


def _ordered(column: Tensor, orders: Tensor | None, epoch: int) -> Tensor:
    if orders is None:
        return column
    return column[torch.arange(len(column), device=column.device)[:, None], orders[epoch]]
