"""Compiled programs, of which a process keeps the last used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache, partial, wraps
from typing import Any, TypeVar

import jax

Returned = TypeVar("Returned")

KEPT = 32
"""Of so many studies the programs are kept. JAX itself keeps thousands, and each has places in the process's map of
memory, of which Linux gives 65,530: a process that tried some hundred studies crashed."""


def compiled(
    fixed: int = 1, *, donated: Sequence[int] = ()
) -> Callable[[Callable[..., Returned]], Callable[..., Returned]]:
    """Compiles a function for each value of its first `fixed` arguments, which can be hashed, and keeps `KEPT` of them.

    What is passed as an argument in `donated` is used up by the call.

    >>> @compiled()
    ... def scaled(factor, x):
    ...     return factor * x
    >>> float(scaled(3, 2.0))
    6.0
    """

    def decorate(function: Callable[..., Returned]) -> Callable[..., Returned]:
        @lru_cache(maxsize=KEPT)
        def program(*values: Any) -> Callable[..., Returned]:
            return jax.jit(partial(function, *values), donate_argnums=tuple(place - fixed for place in donated))

        @wraps(function)
        def call(*arguments: Any) -> Returned:
            return program(*arguments[:fixed])(*arguments[fixed:])

        return call

    return decorate
