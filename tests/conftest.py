"""Small populations that many tests share."""

from __future__ import annotations

import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import settings

import shoal

settings.register_profile("shoal", deadline=None, derandomize=True)  # compilation takes its time, once
settings.load_profile("shoal")
MAP = Path("/proc/self/maps")


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive():
    """A shell starts jobs in the background with Ctrl-C ignored, and their children inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="module")
def programs_are_let_go():
    """Each compiled program has places in this process's map of memory, of which Linux gives 65,530."""
    yield
    if MAP.exists() and MAP.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def regression(seed: int = 0, sizes: tuple[int, ...] = (7, 3, 12, 5), features: int = 4) -> shoal.Population:
    """Ragged clients with numbers to predict, each client's a little different."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=features)
    clients = {}
    for place, size in enumerate(sizes):
        x = random.normal(size=(size, features)).astype(np.float32)
        y = (x @ (truth + 0.3 * random.normal(size=features)) + 0.1 * random.normal(size=size)).astype(np.float32)
        clients[f"c{place}"] = x, y
    return shoal.Population.from_clients(clients)


def classification(
    seed: int = 0, sizes: tuple[int, ...] = (7, 3, 12, 5), features: int = 4, classes: int = 2
) -> shoal.Population:
    """Ragged clients with classes to predict."""
    random = np.random.default_rng(seed)
    truth = random.normal(size=(features, classes))
    clients = {}
    for place, size in enumerate(sizes):
        x = random.normal(size=(size, features)).astype(np.float32)
        noisy = x @ truth + 0.5 * random.normal(size=(size, classes))
        clients[f"c{place}"] = x, noisy.argmax(1).astype(np.int32)
    return shoal.Population.from_clients(clients)


@pytest.fixture
def numbers() -> shoal.Population:
    return regression()


@pytest.fixture
def labels() -> shoal.Population:
    return classification()
