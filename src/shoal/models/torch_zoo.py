"""The zoo's language models in torch: the layouts, the starts and the numbers of their JAX twins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shoal.extras import needed
from shoal.models.gpt import Gpt, gpt
from shoal.models.jax import JaxModel
from shoal.models.losses import Loss, MaskedCrossEntropy
from shoal.models.lstm import LstmLanguage, Positions, char_lstm, word_lstm
from shoal.models.torch import TorchModel
from shoal.models.torch_losses import TorchCrossEntropy
from shoal.models.torch_twin import Twin

torch = needed("torch", "torch")
nn = needed("torch.nn", "torch")
functional = needed("torch.nn.functional", "torch")

Tensor = Any


def torch_char_lstm(
    vocabulary: int,
    *,
    embedding: int = 8,
    hidden: int = 256,
    layers: int = 2,
    positions: Positions = "every",
    padding: int | None = None,
) -> TorchModel:
    """`char_lstm` with `torch.nn.LSTM`: the same layout, so the same vector serves both.

    >>> torch_char_lstm(90).layout == char_lstm(90).layout
    True
    """
    alike = char_lstm(
        vocabulary, embedding=embedding, hidden=hidden, layers=layers, positions=positions, padding=padding
    )
    return _twin(alike, LstmModule)


def torch_word_lstm(
    vocabulary: int,
    *,
    embedding: int = 96,
    hidden: int = 256,
    layers: int = 1,
    tied: bool = True,
    padding: int | None = 0,
) -> TorchModel:
    """`word_lstm` with `torch.nn.LSTM`: the same layout, so the same vector serves both.

    >>> torch_word_lstm(500).layout == word_lstm(500).layout
    True
    """
    alike = word_lstm(vocabulary, embedding=embedding, hidden=hidden, layers=layers, tied=tied, padding=padding)
    return _twin(alike, LstmModule)


def torch_gpt(
    vocabulary: int,
    *,
    length: int,
    width: int = 128,
    heads: int = 4,
    layers: int = 4,
    dropout: float = 0.0,
    padding: int | None = None,
) -> TorchModel:
    """`gpt` as a torch module: the same layout, so the same vector serves both. Dropout draws other numbers.

    >>> torch_gpt(90, length=80).layout == gpt(90, length=80).layout
    True
    """
    alike = gpt(vocabulary, length=length, width=width, heads=heads, layers=layers, dropout=dropout, padding=padding)
    return _twin(alike, GptModule)


def _twin(model: JaxModel, build: Any) -> TorchModel:
    loss = model.loss
    return TorchModel(
        Twin(model, build),
        TorchMaskedCrossEntropy(loss.padding) if isinstance(loss, MaskedCrossEntropy) else TorchCrossEntropy(),
    )


@dataclass(frozen=True)
class TorchMaskedCrossEntropy:
    """Softmax cross-entropy over several labels a row, of which those equal to `padding` do not count."""

    padding: int

    @property
    def alike(self) -> Loss:
        """The same for JAX models."""
        return MaskedCrossEntropy(self.padding)

    def labels(self, labels: Tensor) -> Tensor:
        """Whole numbers."""
        return labels.long()

    def mean(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean of the rows."""
        return self.rows(outputs, labels).mean()

    def rows(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The mean of log(sum(exp(outputs))) - outputs[label] over a row's labels that count."""
        losses = functional.cross_entropy(
            outputs.flatten(0, -2), labels.flatten(), reduction="none", ignore_index=self.padding
        )
        return self._over_present(losses.view(labels.shape), labels)

    def metrics(self, outputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Accuracy."""
        return {"accuracy": self._over_present((outputs.argmax(-1) == labels).float(), labels)}

    def _over_present(self, values: Tensor, labels: Tensor) -> Tensor:
        present = (labels != self.padding).view(len(labels), -1)
        return (values.view(present.shape) * present).sum(1) / present.sum(1).clamp(min=1)


class LstmModule(nn.Module):
    """Embedding, stacked LSTM, and a score for each symbol."""

    def __init__(self, network: LstmLanguage) -> None:
        super().__init__()
        self.embedding = nn.Embedding(network.vocabulary, network.embedding)
        self.lstm = nn.LSTM(network.embedding, network.hidden, network.layers, batch_first=True)
        self.last = network.positions == "last"
        if network.tied:
            self.projection = nn.Linear(network.hidden, network.embedding)
            self.output = Bias(network.vocabulary)
        else:
            self.output = nn.Linear(network.hidden, network.vocabulary)

    def forward(self, x: Tensor) -> Tensor:
        """Scores for the next symbol at every position, or after the last."""
        states, _ = self.lstm(self.embedding(x.long()))
        states = states[:, -1] if self.last else states
        if isinstance(self.output, Bias):  # the embedding again, one Parameter used twice
            return functional.linear(self.projection(states), self.embedding.weight, self.output.bias)
        return self.output(states)


class Bias(nn.Module):
    """A layer that has only a bias, because its weight is another layer's."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(outputs))


class GptModule(nn.Module):
    """Embeddings of symbols and places, blocks, and the embedding again as output."""

    def __init__(self, network: Gpt) -> None:
        super().__init__()
        self.symbols = nn.Embedding(network.vocabulary, network.width)
        self.places = nn.Embedding(network.length, network.width)
        self.blocks = nn.ModuleList(Block(network) for _ in range(network.layers))
        self.norm = nn.LayerNorm(network.width)
        self.dropout = network.dropout

    def forward(self, x: Tensor) -> Tensor:
        """Scores for the next symbol at every position."""
        flow = self.symbols(x.long()) + self.places.weight[: x.shape[1]]
        flow = functional.dropout(flow, self.dropout, self.training)
        for block in self.blocks:
            flow = block(flow)
        return functional.linear(self.norm(flow), self.symbols.weight)


class Block(nn.Module):
    """Causal attention, then two dense layers with GELU, each added to the flow."""

    def __init__(self, network: Gpt) -> None:
        super().__init__()
        width = network.width
        self.norm_1, self.attention, self.mix = (
            nn.LayerNorm(width),
            nn.Linear(width, 3 * width),
            nn.Linear(width, width),
        )
        self.norm_2, self.expand, self.contract = (
            nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.Linear(4 * width, width),
        )  # fmt: skip
        self.heads, self.dropout = network.heads, network.dropout

    def forward(self, flow: Tensor) -> Tensor:
        """The flow with what this block adds."""
        rows, length, width = flow.shape
        split = self.attention(self.norm_1(flow)).view(rows, length, 3, self.heads, width // self.heads)
        query, key, value = split.permute(2, 0, 3, 1, 4)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        flow = flow + self._dropped(self.mix(seen.transpose(1, 2).reshape(rows, length, width)))
        inner = functional.gelu(self.expand(self.norm_2(flow)), approximate="tanh")
        return flow + self._dropped(self.contract(inner))

    def _dropped(self, added: Tensor) -> Tensor:
        return functional.dropout(added, self.dropout, self.training)
