"""Optimizers of Keras as Shoal's, where the formulas are the same."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from shoal.errors import UnsupportedError
from shoal.optimizers import Optimizer, adagrad, adam, optimizer, sgd

_NEUTRAL = {
    "weight_decay": None, "clipnorm": None, "clipvalue": None, "global_clipnorm": None, "use_ema": False,
    "loss_scale_factor": None, "gradient_accumulation_steps": None, "amsgrad": False,
}  # fmt: skip
"""Settings that change the formula, by the value that does not."""


def is_keras_optimizer(value: Any) -> bool:
    """Whether a value is an optimizer of Keras; Keras is not imported for that."""
    return any(kind.__module__.startswith("keras.") and kind.__name__ == "Optimizer" for kind in type(value).__mro__)


def from_keras_optimizer(given: Any) -> Optimizer:
    """The same rule of optax: SGD, Adagrad and RMSprop exactly, Adam but for its epsilon.

    Keras adds Adam's epsilon before the correction of the bias and optax after it, as Kingma and Ba 2015 do in
    algorithm 1: that shows where gradients are as small as epsilon. UnsupportedError for others, and for one with
    decay, clipping, averaging or a schedule.
    """
    settings: dict[str, Any] = given.get_config()
    name = type(given).__name__
    if name not in ("SGD", "Adam", "Adagrad", "RMSprop"):
        raise UnsupportedError(
            f"Keras' {name} has no twin here: use SGD, Adam, Adagrad or RMSprop, or an optimizer of optax by its name, "
            "such as shoal.optimizer('lion', learning_rate=0.01)"
        )
    changed = [f"{key}={settings[key]}" for key, neutral in _NEUTRAL.items() if settings.get(key, neutral) != neutral]
    written: Any = settings["learning_rate"]
    if isinstance(written, dict):
        changed.append("a schedule of its learning rate over steps (shoal.schedules has schedules over rounds)")
    if changed:
        raise UnsupportedError(f"{name} with {', '.join(changed)} has no twin here: leave that out")
    rate = float(str(np.float32(cast("float", written))))  # Keras keeps 0.1 as a float32, 0.10000000149
    match name:
        case "SGD":
            return sgd(rate, momentum=settings["momentum"] or None, nesterov=settings["nesterov"])
        case "Adam":
            return adam(rate, b1=settings["beta_1"], b2=settings["beta_2"], eps=settings["epsilon"])
        case "Adagrad":
            start = settings["initial_accumulator_value"]
            return adagrad(rate, initial_accumulator_value=start, eps=settings["epsilon"])
        case _:
            return optimizer(
                "rmsprop", learning_rate=rate, decay=settings["rho"], eps=settings["epsilon"], eps_in_sqrt=True,
                centered=settings["centered"], momentum=settings["momentum"] or None,
            )  # fmt: skip
