"""A shuffle that needs no memory: the place of one item at a time.

A client's rows are visited in a random order inside a compiled call in which their number is traced. Sorting
random numbers would need as many as the largest client has; this computes only the places asked for.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Int

from shoal.key import Key
from shoal.vector import Array

ROUNDS = 24
TOGETHER = 12
"""How many rounds are written out in a loop's body. All of them would take seconds to compile, and run slower."""


def shuffled(places: Int[Array, " places"], count: Int[Array, ""], key: Key) -> Int[Array, " places"]:
    """Where each place of 0 .. count - 1 goes under a random permutation of all `count`.

    Swap-or-not (Hoang, Morris and Rogaway 2012, figure 1): each round pairs every place with another and
    swaps the pair or leaves it, by a coin that both partners see. With 24 rounds a place keeps no trace of
    where it began (2**-24); this is a shuffle for training, not a cipher.
    """
    count = jnp.maximum(count, 1)
    high, low = jnp.uint32(key.high), jnp.uint32(key.low)

    def some(block: Any, places: Any) -> Any:
        for i in range(TOGETHER):
            round_key = _mixed(high ^ _mixed(low + (block * TOGETHER + i).astype(jnp.uint32)))
            partner = (round_key % count.astype(jnp.uint32)).astype(jnp.int32) - places
            partner = jnp.where(partner < 0, partner + count, partner)
            coin = _mixed(jnp.maximum(places, partner).astype(jnp.uint32) ^ round_key)
            places = jnp.where(coin >> 31 == 1, partner, places)
        return places

    return jax.lax.fori_loop(0, ROUNDS // TOGETHER, some, places)


def _mixed(x: Int[Array, ...]) -> Int[Array, ...]:
    """A 32-bit number with every input bit felt in every output bit (Wellons 2018, "lowbias32")."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)
