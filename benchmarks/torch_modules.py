"""The workloads' networks in torch. Only torch is imported: pfl-research reads this file in its own environment."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional


def module(name: str) -> Any:
    """A workload's network with the weights that every torch contender begins with: zeros for linear ones, else
    torch's own draw."""
    torch.manual_seed(0)
    match name:
        case "W1" | "W5":
            linear = torch.nn.Linear(60, 10) if name == "W1" else torch.nn.Linear(10, 1)
            for parameter in linear.parameters():
                torch.nn.init.zeros_(parameter)
            return linear
        case "W2":
            return _Cnn(5, 1, 2, (3136, 512), 62, False)
        case "W3":
            return _Cnn(3, 3, 0, (12544, 128), 10, True)
        case _:
            return _Lstm()


def loss(name: str, out: Any, y: Any) -> Any:
    """The mean loss of a batch."""
    if name == "W5":
        return functional.binary_cross_entropy_with_logits(out[:, 0], y.to(out.dtype))
    return functional.cross_entropy(out, y)


class _Cnn(torch.nn.Module):
    def __init__(
        self, sides: int, channels: int, padding: int, hidden: tuple[int, int], classes: int, drop: bool
    ) -> None:
        super().__init__()
        self.c1 = torch.nn.Conv2d(channels, 32, sides, padding=padding)
        self.c2 = torch.nn.Conv2d(32, 64, sides, padding=padding)
        self.f1, self.f2 = torch.nn.Linear(*hidden), torch.nn.Linear(hidden[1], classes)
        self.drop = drop

    def forward(self, x: Any) -> Any:
        x = functional.relu(self.c1(x))
        x = functional.relu(self.c2(x)) if self.drop else functional.relu(self.c2(functional.max_pool2d(x, 2)))
        x = functional.max_pool2d(x, 2).flatten(1)
        if not self.drop:
            return self.f2(functional.relu(self.f1(x)))
        x = functional.relu(self.f1(functional.dropout(x, 0.25, self.training)))
        return self.f2(functional.dropout(x, 0.5, self.training))


class _Lstm(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(80, 8)
        self.lstm = torch.nn.LSTM(8, 256, 2, batch_first=True)
        self.out = torch.nn.Linear(256, 80)

    def forward(self, x: Any) -> Any:
        return self.out(self.lstm(self.embedding(x))[0][:, -1])
