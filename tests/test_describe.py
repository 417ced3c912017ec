"""Descriptions and digests of values."""

import json
import subprocess
import sys
from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

import shoal
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


FACTOR = {"scale": 2.0}


def reads_a_dict(x):
    return x * FACTOR["scale"]


class Helper:
    def work(self, x):
        return x + 1


def calls_a_class(x):
    return Helper().work(x)


def outer(x):
    return (lambda y: y * FACTOR["scale"])(x)


def keyword_only(x, *, scale=2.0):
    return x * scale


SOURCES = [
    "@dataclass(frozen=True)\nclass Net:\n    def apply(self, x):\n        return {}\nvalue = Net()",
    "FACTOR = [{}]\ndef value(x):\n    return x * FACTOR[0]",
    "class Helper:\n    def work(self, x):\n        return x + {}\ndef value(x):\n    return Helper().work(x)",
    "def value(x, *, scale={}):\n    return x * scale",
    "import jax.numpy as jnp\nW = jnp.ones(2) * {}\ndef value(x):\n    return x @ W",
    "def value(x):\n    return (lambda y: y * {})(x)",
    "import jax\n@jax.jit\ndef value(x):\n    return x * {}",
    "value = frozenset(['a', 'b', 'c{}'])",
]


@pytest.mark.parametrize("source", SOURCES)
def test_code_that_does_something_else_is_another_plan_and_the_same_code_is_the_same_everywhere(source, tmp_path):
    """Each in a process of its own with its own hash seed, as sites are."""

    def told(factor, seed):
        module = tmp_path / f"module_{factor}{seed}"
        module.mkdir()
        text = "from dataclasses import dataclass\n" + source.replace("{}", str(factor))
        (module / "own.py").write_text(text)
        code = "from own import value; from shoal.describe import digest; print(digest(value))"
        environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(module), "PATH": "", "JAX_PLATFORMS": "cpu"}
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
        return done.stdout.strip()

    assert told(1, 1) == told(1, 2) != told(2, 1)


def test_a_function_is_told_apart_by_everything_it_reads():
    before = [digest(f) for f in (reads_a_dict, calls_a_class, outer, keyword_only)]
    assert len(set(before)) == 4
    assert digest(reads_a_dict) == before[0]
    FACTOR["scale"] = 3.0
    try:
        assert digest(reads_a_dict) != before[0]
        assert digest(outer) != before[2]
    finally:
        FACTOR["scale"] = 2.0


def test_what_is_installed_is_known_by_its_name():
    import jax

    assert describe(jax.nn.relu) == {"is": "jax._src.nn.functions.relu"} or "relu" in str(describe(jax.nn.relu))
    assert describe(shoal.Clip(1.0)) == {"is": "shoal.Clip", "norm": 1.0}
    assert len(json.dumps(describe(np.linalg.norm))) < 100


def test_a_global_without_a_description_is_refused_by_name():
    with pytest.raises(PlanError, match="reads NAMELESS"):
        describe(reads_nameless)


NAMELESS = object()


def reads_nameless(x):
    return NAMELESS
