"""Descriptions and digests of values."""

import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

from shoal.describe import describe, digest
from shoal.errors import PlanError


def made(scale):
    def function(x):
        return scale * x

    return function


@dataclass(frozen=True)
class Thing:
    a: int
    b: tuple[float, ...] = (1.0,)


def test_equal_values_have_equal_digests_and_others_do_not():
    assert digest(Thing(1)) == digest(Thing(1))
    assert len({digest(Thing(1)), digest(Thing(2)), digest(Thing(1, (2.0,)))}) == 3


def test_a_function_is_known_by_its_source_and_by_what_it_closes_over():
    assert digest(made(1.0)) == digest(made(1.0))
    assert digest(made(1.0)) != digest(made(2.0))
    assert digest(made(np.ones(2))) != digest(made(np.zeros(2)))
    assert digest(partial(made, 1)) != digest(partial(made, 2))


def test_functions_that_differ_only_in_a_constant_differ():
    assert digest(lambda x: x + 1) != digest(lambda x: x + 2)


def test_a_digest_is_the_same_in_another_process():
    code = "from tests.test_describe import *; print(digest([Thing(3), made(0.5), np.arange(3)]))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    from tests.test_describe import Thing as Same
    from tests.test_describe import made as same

    assert found == digest([Same(3), same(0.5), np.arange(3)])


def test_a_value_without_a_stable_description_is_refused():
    with pytest.raises(PlanError, match="no stable description"):
        describe(object())


def test_infinities_survive_json():
    assert describe(float("inf")) == "inf"
