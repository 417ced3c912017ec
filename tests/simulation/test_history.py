"""The history prints, plots and becomes a table."""

from __future__ import annotations

import numpy as np
import pytest

import shoal
from shoal import History, models
from shoal.errors import DataError
from tests.conftest import classification

ROWS = tuple(
    {"round": i, "clients": 3, "rejected": 0, "loss": 1 / i, "seconds": 0.1}
    | ({"test loss": 2 / i} if i % 10 == 0 else {})
    for i in range(1, 101)
)


def test_a_history_prints_the_rounds_that_were_measured_the_last_among_them():
    lines = str(History(ROWS)).splitlines()
    assert lines[0].split() == ["round", "clients", "rejected", "loss", "seconds", "test", "loss"]
    assert [line.split()[0] for line in lines[1:]] == [str(i) for i in range(10, 101, 10)]
    assert lines[-1].split()[3:] == ["0.01", "0.1", "0.02"]


def test_a_long_history_without_measurements_prints_twenty_rounds():
    rows = tuple({k: v for k, v in row.items() if k != "test loss"} for row in ROWS)
    lines = str(History(rows)).splitlines()
    assert len(lines) == 21
    assert [line.split()[0] for line in (lines[1], lines[-1])] == ["1", "100"]


def test_a_history_becomes_a_data_frame():
    frame = History(ROWS).to_pandas()
    assert frame.shape == (100, 6)
    assert frame["test loss"].count() == 10
    assert frame["loss"].tolist() == [1 / i for i in range(1, 101)]


def test_a_history_is_plotted_a_panel_for_each_metric(tmp_path):
    figure = History(ROWS).plot(tmp_path / "history.png")
    assert (tmp_path / "history.png").read_bytes()[:4] == b"\x89PNG"
    (axes,) = figure.axes
    assert [line.get_label() for line in axes.lines] == ["loss", "test loss"]
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1 / i for i in range(1, 101)])


def test_columns_hold_only_the_rounds_that_have_them():
    history = History(ROWS)
    assert history.column("test loss") == [2 / i for i in range(10, 101, 10)]
    assert len(history) == len(list(history)) == 100


def test_evaluation_is_each_clients_and_all_examples_together():
    population = classification(sizes=(5, 20, 8))
    vector = np.arange(5, dtype=np.float32) - 2
    found = shoal.evaluate(models.logistic(4), vector, population)
    right = ((population.columns["x"] @ vector[1:] + vector[0]) > 0) == population.columns["y"]
    assert found.pooled["accuracy"] == pytest.approx(right.mean())
    parts = np.split(right, population.offsets[1:-1])
    np.testing.assert_allclose(found.clients["accuracy"], [part.mean() for part in parts])
    assert found.of("c1")["accuracy"] == pytest.approx(parts[1].mean())
    with pytest.raises(DataError, match="there is no client 'nobody'"):
        found.of("nobody")
    with pytest.raises(DataError, match="labels are whole numbers"):
        shoal.evaluate(models.logistic(4), vector, population.with_column("y", population.columns["y"] + 2.0**32))
