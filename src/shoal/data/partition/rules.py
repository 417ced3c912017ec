"""The rules by which rows are dealt to clients. Clients are named by number; a client's rows come in random order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from shoal.data.population import Column, Population
from shoal.errors import DataError, SettingError
from shoal.key import Key
from shoal.settings import number, whole

Owners = Int[np.ndarray, " rows"]
"""Whose each row is; -1 is nobody's."""


def iid(x: Any, y: Any = None, *, clients: int = 100, seed: int = 0) -> Population:
    """Rows dealt at random to clients of equal size, up to one row.

    >>> iid(np.arange(10.0), clients=4).counts.tolist()
    [3, 3, 2, 2]
    """
    rows = _Rows.of(x, y, clients=clients, rule="iid", seed=seed)
    return rows.dealt(rows.random.permutation(np.repeat(np.arange(clients), rows.equal(clients))))


def shards(x: Any, y: Any = None, *, clients: int = 100, per_client: int = 2, seed: int = 0) -> Population:
    """Rows sorted by label, cut into shards of equal size, `per_client` of them for each client at random.

    With two shards each, most clients hold two labels (McMahan et al. 2017, section 3).

    >>> shards(np.arange(8.0), [0, 1, 2, 3, 0, 1, 2, 3], clients=2, per_client=1)["0"].rows("y").tolist()
    [0, 1, 0, 1]
    """
    per_client = whole(per_client, "a client holds at least one shard", least=1)
    rows = _Rows.of(x, y, clients=clients, each=per_client, rule="shards", seed=seed)
    holders = rows.random.permutation(np.repeat(np.arange(clients), per_client))
    owners = np.empty(rows.count, np.int64)
    owners[np.argsort(rows.labels, kind="stable")] = np.repeat(holders, rows.equal(len(holders)))
    return rows.dealt(owners)


def dirichlet(
    x: Any, y: Any = None, *, clients: int = 100, alpha: float = 0.5, size: int | None = None, seed: int = 0
) -> Population:
    """Each client draws its own mixture of labels, and by it its rows without replacement (Hsu et al. 2019).

    The mixture is Dirichlet(alpha * p), p the share of each label in all rows: a large `alpha` gives every client
    that share, a small one gives it a single label. Clients have `size` rows each; without a size all rows are
    dealt, and since labels run out then, the last clients to draw (at random) take what is left.

    >>> dirichlet(np.arange(60.0), np.arange(60) % 3, clients=6, alpha=0.1).counts.tolist()
    [10, 10, 10, 10, 10, 10]
    """
    alpha = number(alpha, "the concentration alpha is over 0", lambda v: v > 0)
    each = 1 if size is None else whole(size, "a client has at least one row", least=1)
    rows = _Rows.of(x, y, clients=clients, each=each, rule="dirichlet", seed=seed)
    wanted = rows.equal(clients) if size is None else np.full(clients, each)
    pools = rows.pools()
    left = np.array([len(pool) for pool in pools])
    mixtures = _dirichlet(rows.random, alpha * left / left.sum(), clients)
    owners = np.full(rows.count, -1)
    for client in rows.random.permutation(clients):
        taken = _drawn(rows.random, mixtures[client], left, int(wanted[client]))
        for label in np.flatnonzero(taken):
            owners[pools[label][left[label] - taken[label] : left[label]]] = client
        left -= taken
    return rows.dealt(owners)


def dirichlet_by_class(
    x: Any, y: Any = None, *, clients: int = 100, alpha: float = 0.5, least: int = 1, seed: int = 0
) -> Population:
    """Each label's rows are shared among the clients by Dirichlet(alpha, ..., alpha) shares (Yurochkin et al. 2019).

    Clients differ in labels and in size, and all rows are dealt. A client with fewer than `least` rows is given some
    of whoever has most. A client's mixture of k labels is about Dirichlet(alpha, ..., alpha): that of `dirichlet`
    at k * alpha.

    >>> dirichlet_by_class(np.arange(60.0), np.arange(60) % 3, clients=3, least=5).counts.tolist()
    [15, 24, 21]
    """
    alpha = number(alpha, "the concentration alpha is over 0", lambda v: v > 0)
    least = whole(least, "a client has at least one row", least=1)
    rows = _Rows.of(x, y, clients=clients, each=least, rule="dirichlet_by_class", seed=seed)
    owners = np.empty(rows.count, np.int64)
    for pool in rows.pools():
        (shares,) = _dirichlet(rows.random, np.full(clients, alpha), 1)
        cuts = np.round(np.cumsum(shares)[:-1] * len(pool)).astype(np.int64)
        owners[pool] = np.searchsorted(cuts, np.arange(len(pool)), side="right")
    _level(owners, clients, least)
    return rows.dealt(owners)


def sizes(x: Any, y: Any = None, *, sizes: Sequence[int], seed: int = 0) -> Population:
    """Rows dealt at random to clients of the sizes given; rows beyond their sum are left out.

    >>> sizes(np.arange(10.0), sizes=[1, 2, 5]).counts.tolist()
    [1, 2, 5]
    """
    if not isinstance(sizes, Sequence | np.ndarray):
        raise SettingError(f"sizes is a list, a number of rows for each client, not {sizes!r}")
    wanted = [whole(size, "a client has at least one row", least=1) for size in sizes]
    rows = _Rows.of(x, y, clients=len(wanted), rule="sizes", seed=seed)
    if sum(wanted) > rows.count:
        raise SettingError(f"the sizes add up to {sum(wanted)} rows, and there are {rows.count}")
    return rows.sized(np.array(wanted))


def lognormal(
    x: Any, y: Any = None, *, clients: int = 100, sigma: float = 1.0, least: int = 1, seed: int = 0
) -> Population:
    """Rows dealt at random to clients whose sizes are as exp(sigma * a normal number), each at least `least`.

    >>> lognormal(np.arange(100.0), clients=4, sigma=0.0).counts.tolist()
    [25, 25, 25, 25]
    """
    sigma = number(sigma, "the deviation sigma of a logarithm is 0 or more", lambda v: v >= 0)
    rows = _Rows.of(x, y, clients=clients, each=least, rule="lognormal", seed=seed)
    logarithms = sigma * rows.random.normal(size=clients)
    return rows.sized(_apportioned(np.exp(logarithms - logarithms.max()), rows.count, least))


def power_law(
    x: Any, y: Any = None, *, clients: int = 100, exponent: float = 1.0, least: int = 1, seed: int = 0
) -> Population:
    """Rows dealt at random to clients of which the n-th has a size as n ** -exponent, each at least `least`.

    >>> power_law(np.arange(110.0), clients=3).counts.tolist()
    [60, 30, 20]
    """
    exponent = number(exponent, "the exponent of a power law is 0 or more", lambda v: v >= 0)
    rows = _Rows.of(x, y, clients=clients, each=least, rule="power_law", seed=seed)
    return rows.sized(_apportioned(np.arange(1.0, clients + 1) ** -exponent, rows.count, least))


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows to deal, and the generator that deals them."""

    columns: dict[str, Column]
    count: int
    random: np.random.Generator

    @staticmethod
    def of(x: Any, y: Any, *, clients: int, rule: str, seed: int, each: int = 1) -> _Rows:
        whole(clients, "a population has at least one client", least=1)
        whole(each, "a client has at least one row", least=1)
        if isinstance(x, Population) and y is not None:
            raise SettingError("a population brings its labels with it: give no y beside it")
        given = x if isinstance(x, Population) else Population.from_arrays(x, y, groups=np.zeros(_length(x), np.int8))
        count = int(given.offsets[-1])
        if clients * each > count:
            raise SettingError(
                f"{clients} clients of at least {each} need {clients * each} rows, and there are {count}"
            )
        return _Rows(dict(given.columns), count, Key.from_seed(seed).split("partition", rule).generator())

    @property
    def labels(self) -> Column:
        """The labels, one for each row."""
        labels = self.columns.get("y")
        if labels is None or labels.ndim != 1:
            shape = "there is none" if labels is None else f"its rows have shape {labels.shape[1:]}"
            raise DataError(f"to deal by label there is one label for each row in column 'y'; {shape}")
        return labels

    def equal(self, parts: int) -> Int[np.ndarray, " parts"]:
        """Sizes of parts that differ by one row at most."""
        return self.count // parts + (np.arange(parts) < self.count % parts)

    def pools(self) -> list[Owners]:
        """The rows of each label, in random order."""
        _, labels = np.unique(self.labels, return_inverse=True)
        order = self.random.permutation(self.count)
        order = order[np.argsort(labels[order], kind="stable")]
        return np.split(order, np.cumsum(np.bincount(labels))[:-1])

    def sized(self, wanted: Int[np.ndarray, " clients"]) -> Population:
        """The population of clients of these sizes, rows drawn at random."""
        owners = np.full(self.count, -1)
        owners[: wanted.sum()] = np.repeat(np.arange(len(wanted)), wanted)
        return self.dealt(self.random.permutation(owners))

    def dealt(self, owners: Owners) -> Population:
        """The population in which each row is its owner's."""
        order = self.random.permutation(np.flatnonzero(owners >= 0))
        order = order[np.argsort(owners[order], kind="stable")]
        columns = {name: column[order] for name, column in self.columns.items()}
        counts = np.bincount(owners[order])
        offsets = np.concatenate([[0], np.cumsum(counts)])
        return Population(tuple(map(str, range(len(counts)))), columns, offsets)


def _length(x: Any) -> int:
    return len(x) if hasattr(x, "__len__") else 1  # a single value is then refused as a column


def _dirichlet(random: np.random.Generator, concentration: Float[np.ndarray, " k"], draws: int) -> Column:
    """Dirichlet draws, one a row. In logarithms, because a small concentration gives gammas that are 0 as floats.

    The logarithm of Gamma(a) is that of Gamma(a + 1) plus log(U) / a (Marsaglia and Tsang 2000, section 8).
    """
    shape = (draws, len(concentration))
    with np.errstate(divide="ignore", over="ignore"):
        logarithms = np.log(random.gamma(concentration + 1, size=shape)) + np.log(random.random(shape)) / concentration
        weights = np.exp(logarithms - logarithms.max(1, keepdims=True))
    return weights / weights.sum(1, keepdims=True)


def _drawn(random: np.random.Generator, mixture: Column, left: Column, size: int) -> Column:
    """How many rows of each label a client takes; the label of what has run out is drawn again among the others."""
    taken = np.zeros_like(left)
    while (missing := size - taken.sum()) > 0:
        open_labels = np.where(taken < left, mixture, 0.0)
        if not open_labels.sum() > 0:  # its labels have all run out: what is left, by its share
            open_labels = (left - taken).astype(np.float64)
        taken = np.minimum(taken + random.multinomial(missing, open_labels / open_labels.sum()), left)
    return taken


def _level(owners: Owners, clients: int, least: int) -> None:
    """Gives clients with fewer rows than `least` some of whoever has most, in place."""
    counts = np.bincount(owners, minlength=clients)
    for client in np.flatnonzero(counts < least):
        while counts[client] < least:
            richest = int(counts.argmax())
            moved = int(min(least - counts[client], counts[richest] - max(least, counts[richest] // 2)))
            owners[np.flatnonzero(owners == richest)[-moved:]] = client
            counts[richest] -= moved
            counts[client] += moved


def _apportioned(weights: Float[np.ndarray, " clients"], count: int, least: int) -> Int[np.ndarray, " clients"]:
    """Whole sizes of at least `least` that add up to the count, the rest in proportion by largest remainders."""
    exact = weights / weights.sum() * count
    low = np.zeros(len(weights), bool)
    while (exact[~low] < least).any():  # who would fall short gets the least, the others share what then remains
        low |= exact < least
        exact[low] = least
        exact[~low] = weights[~low] / weights[~low].sum() * (count - least * low.sum())
    whole_sizes = np.floor(exact).astype(np.int64)
    short = np.argsort(whole_sizes - exact, kind="stable")[: count - whole_sizes.sum()]
    whole_sizes[short] += 1
    return whole_sizes
