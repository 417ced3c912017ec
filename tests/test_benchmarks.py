"""The benchmark's form: what a person reads and what a program reads."""

import json
import subprocess
import sys

import pytest
from benchmarks.report import Report
from benchmarks.secure_session import Sized, played

from shoal.secure.parameters import Shape


def run(*arguments, name="engine", row="import shoal"):
    command = [sys.executable, "-m", "benchmarks", name, "--only", row, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_figures_are_one_object_of_rows():
    done = run("--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["benchmark"] == "engine"
    assert found["machine"]
    (row,) = found["rows"]
    assert set(row) == {"name", "value", "unit", "reference", "ratio", "bound", "holds"}
    assert row["holds"] == (row["value"] <= 0.5)


def test_the_figures_are_a_table_for_people():
    assert "import shoal" in run().stdout


def test_a_row_is_held_against_its_bound_by_ratio_where_there_is_a_reference():
    report = Report("engine")
    report.add("fast", 1.0, "s", reference=2.0, bound=0.6)
    report.add("slow", 2.0, "s", reference=2.0, bound=0.6)
    assert [(row.ratio, row.holds) for row in report.rows] == [(pytest.approx(0.5), True), (pytest.approx(1.0), False)]


@pytest.mark.skipif(sys.platform != "linux", reason="a server's CPU time and memory are read from /proc")
def test_a_row_of_the_network_is_measured_on_a_server_that_closes_rounds():
    done = run("--json", "--quick", name="network", row="round latency")
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)["rows"]
    assert row["unit"] == "ms"
    assert row["bound"] == 150
    assert row["value"] > 0


def test_a_secure_sum_is_measured_on_a_session_whose_sum_is_right():
    cost = played(Sized(clients=12, size=50, dropped=3, shape=Shape(11, 9)))
    assert cost.streams == 9 + 3 * 9
    assert cost.wire_bytes > 12 * 88 + 4 * 50
    assert 0 < cost.unmasking_s < cost.ending_s
    assert 0 < cost.signatures_s < cost.client_s


def test_on_a_graph_only_masks_with_neighbours_are_expanded():
    cost = played(Sized(clients=20, size=50, dropped=2, shape=Shape(6, 4)))
    assert 18 <= cost.streams <= 18 + 2 * 6


def test_a_row_of_secure_sums_says_what_two_threads_are_worth():
    done = run("--json", "--quick", name="secure", row="two threads")
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)["rows"]
    assert [row["bound"] for row in rows] == [0.625, 0.625]
    assert all(row["ratio"] == pytest.approx(row["value"] / row["reference"]) for row in rows)


def test_the_figures_of_secure_noise_stand_beside_numpys_generator():
    done = run("--json", "--quick", name="privacy", row="secure discrete Gaussian, 64")
    time, throughput = json.loads(done.stdout)["rows"]
    assert time["bound"] == 5
    assert time["value"] * throughput["value"] == pytest.approx(1e9)
