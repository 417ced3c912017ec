"""The benchmark's form: what a person reads and what a program reads."""

import json
import subprocess
import sys

import pytest
from benchmarks.report import Report


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
