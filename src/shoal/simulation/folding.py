"""The payloads of a cohort, added up inside a compiled call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from shoal.aggregation import Bag
from shoal.key import Key

Turn = Callable[[Any, Any, Key], Any]
"""A client's turn, from its place, its state and its key: its payload, and its state after."""


def cohort_total(turn: Turn, lanes: int, states: Any, cohort: Any, size: Any, keys: Key) -> Any:
    """The payloads of a cohort, added up; the states of all clients after it; and who of the cohort counted.

    `cohort` holds the places of clients in its first `size` entries, `keys` a key for each. With one lane
    clients follow each other; with more, that many go in lockstep.
    """

    def some(i: Any, carry: Any) -> Any:
        total, states, present = carry
        at = i * lanes
        places, lane_keys = jax.tree.map(lambda v: jax.lax.dynamic_slice_in_dim(v, at, lanes), (cohort, keys))
        live = at + jnp.arange(lanes) < size
        before = jax.tree.map(lambda s: s[places], states)
        payloads, after = jax.vmap(turn)(places, before, lane_keys)
        payloads, present = _masked(payloads, live, present, at)
        states = jax.tree.map(lambda s, a: s.at[jnp.where(live, places, s.shape[0])].set(a, mode="drop"), states, after)
        return _added(total, payloads, at), states, present

    def one(i: Any, carry: Any) -> Any:
        total, states, present = carry
        place = cohort[i]
        payload, after = turn(place, jax.tree.map(lambda s: s[place], states), Key(keys.high[i], keys.low[i]))
        states = jax.tree.map(lambda s, a: s.at[place].set(a), states, after)
        present = present.at[i].set(payload.clients.reshape(()))
        payloads = jax.tree.map(lambda leaf: leaf[None], payload)
        return _added(total, payloads, i), states, present

    shape, _ = jax.eval_shape(turn, cohort[0], jax.tree.map(lambda s: s[0], states), Key(keys.high[0], keys.low[0]))
    start = (_empty(shape, cohort.shape[0]), states, jnp.zeros(cohort.shape, jnp.int32))
    if lanes == 1:
        return jax.lax.fori_loop(0, size, one, start)
    return jax.lax.fori_loop(0, (size + lanes - 1) // lanes, some, start)


def _masked(payloads: Any, live: Any, present: Any, at: Any) -> Any:
    """Payloads with nothing in the lanes beyond the cohort; and who of the cohort counted."""
    width = live.shape[0]
    masked = jax.tree.map(lambda p: jnp.where(live.reshape(width, *[1] * (p.ndim - 1)), p, 0), payloads)
    counted = masked.clients.reshape(width)
    return masked, jax.lax.dynamic_update_slice_in_dim(present, counted, at, 0)


def _empty(shape: Any, most: int) -> Any:
    """What payloads are added to: zeros; or an empty bag with room for the cohort."""
    if not isinstance(shape, Bag):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shape)
    rows = {f: getattr(shape, f) for f in ("value", "weight", "clients")}
    rows = {f: jnp.zeros((most, *leaf.shape[1:]), leaf.dtype) for f, leaf in rows.items()}
    return Bag(notes=jax.tree.map(lambda n: jnp.zeros(n.shape, n.dtype), shape.notes), **rows)


def _added(total: Any, payloads: Any, at: Any) -> Any:
    """The total with a stack of payloads added; or, for a bag, put in at their places."""
    if not isinstance(total, Bag):
        return jax.tree.map(lambda t, p: t + jnp.sum(p, 0, dtype=t.dtype), total, payloads)

    def put(rows: Any, new: Any) -> Any:
        return jax.lax.dynamic_update_slice_in_dim(rows, new[:, 0], at, 0)

    return Bag(
        put(total.value, payloads.value),
        put(total.weight, payloads.weight),
        jax.tree.map(lambda t, p: t + jnp.sum(p, 0), total.notes, payloads.notes),
        put(total.clients, payloads.clients),
    )
