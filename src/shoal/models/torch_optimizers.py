"""Client optimizers as arithmetic on one flat torch vector: the same numbers as optax's.

A rule is looked up once a round, with its schedules evaluated; each client starts it afresh. `weights` is one
vector, or one a row: everything here goes entry by entry.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from shoal.errors import SettingError, UnsupportedError
from shoal.extras import needed
from shoal.optimizers import Optimizer, sgd
from shoal.schedules import Schedule

torch = needed("torch", "torch")

Tensor = Any

Step = Callable[[Tensor], None]
"""One step: takes the gradient, and changes the weights in place."""


@dataclass(frozen=True)
class Rule:
    """An optimizer in one round: its name and its numbers."""

    name: str
    arguments: dict[str, Any]

    @property
    def rate(self) -> float | None:
        """The learning rate where a step is nothing but a multiple of the gradient, else None."""
        plain = self.name == "sgd" and self.arguments.get("momentum") is None
        return self.arguments["learning_rate"] if plain else None

    def start(self, weights: Tensor) -> Step:
        """A step on these weights, with nothing remembered."""
        return _RULES[self.name](weights, **self.arguments)


def rule(optimizer: Optimizer | None, round: Any) -> Rule:
    """The rule of an optimizer in a round; UnsupportedError if there is none for torch.

    >>> rule(sgd(0.1), 0)
    Rule(name='sgd', arguments={'learning_rate': 0.1})
    """
    optimizer = optimizer or sgd(0.1)
    if optimizer.name not in _RULES:
        raise UnsupportedError(
            f"{optimizer.name} is not there for torch models, {', '.join(_RULES)} are: or give a factory to "
            "from_torch, such as optimizer=lambda params: torch.optim.Adam(params, lr=0.001)"
        )
    arguments = {k: float(v.at(round)) if isinstance(v, Schedule) else v for k, v in optimizer.arguments}
    found = Rule(optimizer.name, arguments)
    try:
        found.start(torch.zeros(1))(torch.zeros(1))
    except TypeError as error:
        raise UnsupportedError(f"{optimizer} for a torch model: {str(error).partition(' ')[2]}") from error
    return found


def own(factory: Callable[[list[Any]], Any], weights: Tensor) -> Step:
    """A step of the optimizer that a factory makes of the weights; SettingError if it makes no such thing."""
    parameter = torch.nn.Parameter(weights)
    optimizer = factory([parameter])
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise SettingError(
            "an optimizer factory takes a list of parameters and returns a torch.optim.Optimizer, such as "
            f"lambda params: torch.optim.Adam(params, lr=0.001), not a {type(optimizer).__name__}"
        )
    held = [p for group in optimizer.param_groups for p in group["params"]]
    if len(held) != 1 or held[0] is not parameter:
        raise SettingError(
            f"an optimizer factory hands on the parameters it is given; it put in {len(held)} of its own"
        )

    def step(gradient: Tensor) -> None:
        parameter.grad = gradient
        optimizer.step()

    return step


def check_factory(factory: Any) -> None:
    """SettingError if a factory does not give an optimizer that can make a step."""
    if not callable(factory):
        raise SettingError(
            "optimizer is a function from parameters to a torch.optim.Optimizer, such as "
            f"lambda params: torch.optim.Adam(params, lr=0.001), not a {type(factory).__name__}"
        )
    try:
        own(factory, torch.zeros(2))(torch.zeros(2))
    except SettingError:
        raise
    except Exception as error:  # the factory is the user's own code
        raise SettingError(
            f"the optimizer that the factory makes cannot step: {type(error).__name__}: {error}"
        ) from error


def _sgd(weights: Tensor, learning_rate: float, momentum: float | None = None, nesterov: bool = False) -> Step:
    """w <- w - rate * g; with momentum t <- momentum * t + g in g's place (nesterov: g + momentum * t)."""
    trace = None if momentum is None else torch.zeros_like(weights)

    def step(gradient: Tensor) -> None:
        if trace is not None:
            trace.mul_(momentum).add_(gradient)
            gradient = gradient.add(trace, alpha=momentum) if nesterov else trace
        weights.add_(gradient, alpha=-learning_rate)

    return step


def _adam(
    weights: Tensor, learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, eps_root: float = 0.0
) -> Step:
    """m / (sqrt(v) + eps) with bias correction (Kingma and Ba 2015, algorithm 1)."""
    return _moments(weights, learning_rate, b1, b2, eps, eps_root, 0.0)


def _adamw(
    weights: Tensor, learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8,
    eps_root: float = 0.0, weight_decay: float = 1e-4,
) -> Step:  # fmt: skip
    """Adam, and the weights shrink by rate * decay (Loshchilov and Hutter 2019, algorithm 2)."""
    return _moments(weights, learning_rate, b1, b2, eps, eps_root, weight_decay)


def _moments(weights: Tensor, rate: float, b1: float, b2: float, eps: float, eps_root: float, decay: float) -> Step:
    mean, square = torch.zeros_like(weights), torch.zeros_like(weights)
    count = 0

    def step(gradient: Tensor) -> None:
        nonlocal count
        count += 1
        mean.mul_(b1).add_(gradient, alpha=1 - b1)
        square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        spread = square.div(1 - b2**count)
        spread = (spread.add_(eps_root) if eps_root else spread).sqrt_().add_(eps)
        if decay:
            weights.mul_(1 - rate * decay)
        weights.addcdiv_(mean, spread, value=-rate / (1 - b1**count))

    return step


def _yogi(weights: Tensor, learning_rate: float, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-3) -> Step:
    """Adam whose v moves towards g^2 by steps that do not depend on it (Zaheer et al. 2018, algorithm 2)."""
    mean, square = torch.full_like(weights, 1e-6), torch.full_like(weights, 1e-6)
    count = 0

    def step(gradient: Tensor) -> None:
        nonlocal count
        count += 1
        power = gradient.square()
        mean.mul_(b1).add_(gradient, alpha=1 - b1)
        square.sub_(torch.sign(square - power) * power, alpha=1 - b2)
        spread = square.div(1 - b2**count).sqrt_().add_(eps)
        weights.addcdiv_(mean, spread, value=-learning_rate / (1 - b1**count))

    return step


def _adagrad(weights: Tensor, learning_rate: float, initial_accumulator_value: float = 0.1, eps: float = 1e-7) -> Step:
    """g / sqrt(sum of g^2 + eps), and 0 where that sum is 0 (Duchi, Hazan and Singer 2011)."""
    total = torch.full_like(weights, initial_accumulator_value)

    def step(gradient: Tensor) -> None:
        total.addcmul_(gradient, gradient)
        scale = torch.where(total > 0, total.add(eps).rsqrt_(), 0.0)
        weights.addcmul_(scale, gradient, value=-learning_rate)

    return step


def _rmsprop(
    weights: Tensor, learning_rate: float, decay: float = 0.9, eps: float = 1e-8, initial_scale: float = 0.0,
    eps_in_sqrt: bool = True, momentum: float | None = None, nesterov: bool = False,
) -> Step:  # fmt: skip
    """g / sqrt(v + eps), where v is the running mean of g^2 (Hinton 2012); then momentum, if any."""
    square = torch.full_like(weights, initial_scale)
    move = _sgd(weights, 1.0, momentum, nesterov)

    def step(gradient: Tensor) -> None:
        square.mul_(decay).addcmul_(gradient, gradient, value=1 - decay)
        scale = square.add(eps).sqrt_() if eps_in_sqrt else square.sqrt().add_(eps)
        move(gradient.mul(learning_rate).div_(scale))

    return step


_RULES: dict[str, Callable[..., Step]] = {
    "sgd": _sgd, "adam": _adam, "adamw": _adamw, "adagrad": _adagrad, "yogi": _yogi, "rmsprop": _rmsprop,
}  # fmt: skip
