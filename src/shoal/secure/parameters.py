"""How many neighbours and which threshold a secure sum needs, by exact tails (Bell et al. 2020, section 3).

Of n clients c work together with the server and d drop out, whoever they are: as neighbours are drawn at random, how
many of a client's k neighbours are among them is hypergeometric. Three things must not happen to any client:

- corrupt neighbours learn its secrets: `threshold` of them or more. Where the server may tell neighbours different
  things (`malicious`), it may ask some for one secret and the others for the other: that takes 2 * threshold - k;
- the honest clients that stay fall into parts, and the server learns each part's sum: two runs of k / 2 clients on the
  ring, all corrupt or gone;
- fewer than `threshold` neighbours stay, and the sum is lost.

The first two together have probability 2**-security at most, half of it each, and the third 2**-failure.

That is so if who drops out has nothing to do with the ring. In a session a malicious server says who has, and knows the
ring by then: it can leave out, but for its own, two runs of k / 2 clients. Those next to a run then have k / 2 holders
elsewhere and answer only if `threshold` of all have confirmed, so each of the two runs needs `threshold` - k / 2
corrupt clients. In the place of the second, `shape` has this: no two runs have so many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float64

from shoal.errors import SecureSumError, SettingError
from shoal.secure.terms import CLIENTS, COMPLETE
from shoal.settings import number, settle, whole

FAILURE = 20
"""A session is lost for want of neighbours with probability 2**-20 at most."""
MOST = 2000
"""More neighbours are not looked at: that no number is enough is known within a second."""


@dataclass(frozen=True)
class Shape:
    """How many `neighbours` hold shares of a client, and how many of the holders can rebuild its secrets."""

    neighbours: int
    threshold: int

    def __post_init__(self) -> None:
        neighbours = whole(self.neighbours, "a client has 1 neighbour or more", least=1, most=CLIENTS)
        rule = f"a threshold is from 1 to all holders, at most {neighbours + 1}"
        settle(self, neighbours=neighbours, threshold=whole(self.threshold, rule, least=1, most=neighbours + 1))


def shape(clients: int, *, threshold: int, corrupt: float, malicious: bool = True, security: int = 60) -> Shape:
    """The shape of a session of so many clients, which must be able to lose all but `threshold` of them.

    Up to 128 clients everybody holds for everybody, and more than half rebuild. Above, it is the least one, where a
    malicious server also says who drops out, once it knows the ring. It can try as many orders of the ring as it can
    leave clients out: security is 2**-60, not 2**-40, for that.

    >>> shape(100, threshold=67, corrupt=0.05)
    Shape(neighbours=99, threshold=67)
    >>> shape(1000, threshold=900, corrupt=0.05)
    Shape(neighbours=94, threshold=65)
    """
    if not 2 <= threshold <= clients:
        raise SecureSumError(f"a secure sum of {threshold} clients needs as many and at least 2: here are {clients}")
    if clients <= COMPLETE:
        return Shape(clients - 1, max(threshold, clients // 2 + 1))
    count = _count(corrupt, clients)
    found = _search(clients, count, clients - threshold, malicious, security, FAILURE, chosen=malicious)
    if found is None:
        raise SecureSumError(_advice(clients, count, threshold, malicious, security))
    return found


def least(
    clients: int, *, corrupt: float, dropout: float, malicious: bool = True, security: int = 40, failure: int = FAILURE
) -> Shape:
    """The fewest neighbours, an even number, and their least threshold, if fractions are corrupt and drop out.

    SettingError if there are none: fractions are too large, or clients too few.

    >>> least(1000, corrupt=0.05, dropout=0.05, malicious=False)
    Shape(neighbours=30, threshold=17)
    """
    clients = whole(clients, f"a secure sum has 2 to {CLIENTS} clients", least=2, most=CLIENTS)
    found = _search(clients, _count(corrupt, clients), _count(dropout, clients), malicious, security, failure)
    if found is None:
        raise SettingError(
            f"no number of neighbours is enough for {clients} clients of which {corrupt:g} are corrupt and "
            f"{dropout:g} drop out: take more clients, or smaller fractions"
        )
    return found


def _count(fraction: float, clients: int) -> int:
    """The most clients that a fraction can be."""
    share = number(fraction, "a fraction of clients is from 0 to under 1", lambda v: 0 <= v < 1)
    return math.floor(share * clients + 1e-9)  # 0.29 of 100 is 29, though the product is a little less


def _advice(clients: int, corrupt: int, threshold: int, malicious: bool, security: int) -> str:
    low, high = threshold, clients + 1
    while high - low > 1:
        middle = (low + high) // 2
        if _search(clients, corrupt, clients - middle, malicious, security, FAILURE, chosen=malicious) is None:
            low = middle
        else:
            high = middle
    what = f"a threshold of {high} will do" if high <= clients else "no threshold will do"
    return f"a sum of at least {threshold} of {clients} clients, {corrupt} of them corrupt, cannot be secure: {what}"


@lru_cache(maxsize=256)
def _search(
    clients: int, corrupt: int, dropped: int, malicious: bool, security: int, failure: int, *, chosen: bool = False
) -> Shape | None:
    """The least shape for so many corrupt clients and so many that drop out, which the server has chosen or chance."""
    logs = np.array([math.lgamma(number + 1) for number in range(clients + 1)])
    secure = 2.0 ** -(security + 1)
    for neighbours in range(2, min(clients - 2, MOST) + 1, 2):
        if not chosen and _parts(logs, corrupt + dropped, neighbours) > secure:
            continue
        safe = int((_tail(logs, corrupt, neighbours) > secure / clients).sum())  # so many are corrupt of no client's
        threshold = max(2, (neighbours + safe + 1) // 2 if malicious else safe)
        if chosen and neighbours <= corrupt + dropped:
            threshold = max(threshold, neighbours // 2 + _uncut(logs, corrupt, neighbours, secure))
        if threshold > neighbours:
            continue
        if _tail(logs, dropped, neighbours)[neighbours - threshold + 1] <= 2.0**-failure / clients:
            return Shape(neighbours, threshold)
    return None


def _tail(logs: Float64[np.ndarray, " clients+1"], marked: int, neighbours: int) -> Float64[np.ndarray, " tail"]:
    """The probabilities that 0, 1, ... `neighbours` + 1 or more of the neighbours of a place on the ring are marked.

    Whoever stands at the place, its neighbours are any of all clients as likely as any others.
    """
    clients = len(logs) - 1
    rest = clients - marked
    hits = np.arange(max(0, neighbours - rest), min(neighbours, marked) + 1)
    misses = neighbours - hits
    of_marked = logs[marked] - logs[hits] - logs[marked - hits]
    of_rest = logs[rest] - logs[misses] - logs[rest - misses]
    of_all = logs[clients] - logs[neighbours] - logs[clients - neighbours]
    exactly = np.zeros(neighbours + 2)
    exactly[hits] = np.exp(of_marked + of_rest - of_all)
    return exactly[::-1].cumsum()[::-1]


def _parts(logs: Float64[np.ndarray, " clients+1"], out: int, neighbours: int) -> float:
    """A bound on the probability that a ring of which `out` clients are taken out falls into parts.

    It takes two runs of half the neighbours each, with somebody between them on both sides. All of two given runs are
    out with probability C(clients - neighbours, out - neighbours) / C(clients, out); the bound adds all pairs of runs.
    """
    clients = len(logs) - 1
    if neighbours > out:
        return 0.0
    pairs = clients * (clients - neighbours - 1) / 2
    both = logs[out] - logs[out - neighbours] - logs[clients] + logs[clients - neighbours]
    return pairs * math.exp(both)


def _uncut(logs: Float64[np.ndarray, " clients+1"], corrupt: int, neighbours: int, secure: float) -> int:
    """The least number of corrupt clients of which no two runs of half the neighbours have as many, both of them.

    How many two runs have is negatively associated (Joag-Dev and Proschan 1983), so that the product of probabilities
    is a bound; all pairs of runs are added.
    """
    clients = len(logs) - 1
    pairs = clients * (clients - neighbours - 1) / 2
    return int((pairs * _tail(logs, corrupt, neighbours // 2) ** 2 > secure).sum())
