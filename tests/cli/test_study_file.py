"""Study files: what is taken from them, and what is said of one that cannot be used."""

from __future__ import annotations

import re
import sys

import pytest

import shoal
from shoal.cli.study_file import load
from shoal.errors import ShoalError, StudyFileError

PLAN = """\
import shoal

plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(2)), rounds=3)
"""
POPULATION = 'population = shoal.Population.from_arrays([[1.0, 2.0], [3.0, 4.0]], [0, 1], groups=["a", "b"])\n'


@pytest.fixture
def write(tmp_path):
    def written(text, name="study.py"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


def test_plan_population_test_and_every_are_taken(write):
    found = load(write(PLAN + POPULATION + "test = population\nevery = 7\n"))
    assert found.plan == shoal.Plan(shoal.FedAvg(shoal.models.logistic(2)), rounds=3)
    assert found.population.columns["x"].tolist() == [[1, 2], [3, 4]]
    assert found.test is found.population
    assert found.every == 7


def test_all_but_the_plan_may_be_left_out(write):
    found = load(write(PLAN))
    assert (found.population, found.test, found.every) == (None, None, None)


def test_a_study_does_not_run_as_the_main_program(write):
    assert load(write(PLAN + 'if __name__ == "__main__":\n    raise SystemExit("ran")\n')).plan.rounds == 3


def test_a_population_may_be_a_function_that_is_called_only_when_asked(write):
    found = load(write(PLAN + "def population():\n    made.append(1)\n    return {'a': 1}\nmade = []\n"))
    assert found.population.__globals__["made"] == []
    assert found.data() == ({"a": 1}, None)
    assert found.population.__globals__["made"] == [1]


def test_a_population_that_is_no_function_is_itself_and_a_test_of_the_state_is_not_called(write):
    found = load(write(PLAN + "population = {'a': 1}\ndef test(state):\n    return {}\n"))
    assert found.data() == (found.population, found.test)


def test_a_study_imports_the_modules_beside_it_and_leaves_the_path_as_it_was(write):
    write("ROUNDS = 11\n", "beside_the_study.py")
    before = list(sys.path)
    path = write("from beside_the_study import ROUNDS\n" + PLAN.replace("rounds=3", "rounds=ROUNDS"))
    found = load(path)
    del sys.modules["beside_the_study"]
    assert found.plan.rounds == 11
    assert sys.path == before


def test_a_study_that_fails_leaves_the_path_as_it_was(write):
    before = list(sys.path)
    with pytest.raises(StudyFileError):
        load(write("1 / 0\n"))
    assert sys.path == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", r"study\.py defines no plan: write  plan = shoal\.Plan\("),
        ("plan = 'FedAvg'\n", "defines no plan"),
        ("x = 1\n\nplan = = 2\n", r"study\.py, line 3: SyntaxError: invalid syntax"),
        ("x = 1\n\n\ny = (1,\n", r"study\.py, line 4: SyntaxError: '\(' was never closed"),
        ("x = 1\n" + "y = 1 / 0\n", r"study\.py, line 2: ZeroDivisionError: division by zero"),
        ("def f():\n    return {}['k']\n\n\nf()\n", r"study\.py, line 2: KeyError: 'k'"),
        ("\nimport no_such_module_anywhere\n", r"study\.py, line 2: ModuleNotFoundError: No module named"),
        (PLAN.replace("rounds=3", "rounds=0"), r"study\.py, line 3: a plan has at least one round, not 0"),
        (PLAN.replace("logistic(2)", "logistic(2), epochs=0"), r"study\.py, line 3: .*at least one epoch"),
        (PLAN + "\n" + POPULATION.replace('["a", "b"]', '["a"]'), r"study\.py, line 5: .*there are 1 group labels"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_the_place(write, text, message):
    with pytest.raises(StudyFileError, match=message) as raised:
        load(write(text))
    assert "\n" not in str(raised.value)


def test_a_message_of_several_lines_becomes_one(write):
    with pytest.raises(StudyFileError, match="line 1: ValueError: one") as raised:
        load(write('raise ValueError("one\\ntwo")\n'))
    assert "\n" not in str(raised.value)


def test_a_mistake_in_a_module_beside_it_is_placed_there_or_at_the_import(write):
    write("a = 1\n\n\n\n\n\n\n\nb = (\n", "broken_beside.py")
    with pytest.raises(StudyFileError, match=r"broken_beside\.py, line 9") as raised:
        load(write("x = 1\nimport broken_beside\n"))
    assert not re.search(r"study\.py, line 9", str(raised.value))


def test_a_file_that_is_not_there_is_refused(tmp_path):
    for path in (tmp_path / "nothing.py", tmp_path):
        with pytest.raises(ShoalError, match=f"there is no file {re.escape(str(path))}"):
            load(path)
