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
    "@dataclass(frozen=True)\nclass Net:\n    def apply(self, x):\n        return {} * x\nvalue = Net()",
    "FACTOR = [{}]\ndef value(x):\n    return x * FACTOR[0]",
    "class Helper:\n    def work(self, x):\n        return x + {}\ndef value(x):\n    return Helper().work(x)",
    "class Helper:\n    factor = {}\ndef value(x):\n    return x * Helper.factor",
    "class Told:\n    def __repr__(self):\n        return 'T'\n    def work(self):\n        return {}\nvalue = Told()",
    "class Base:\n    def work(self):\n        return {}\nclass Own(Base):\n    pass\nvalue = Own()",
    "class Mood(enum.Enum):\n    GOOD = {}\ndef value(x):\n    return Mood.GOOD",
    "@dataclass(frozen=True)\nclass Net:\n    width: int = field(default={}, repr=False)\nvalue = Net()",
    "class Pair(NamedTuple):\n    x: int\n    def work(self):\n        return {}\nvalue = Pair(1)",
    "def value(x, *, scale={}):\n    return x * scale",
    "W = jnp.ones(2) * {}\ndef value(x):\n    return x @ W",
    "KEY = jax.random.key({})\ndef value(x):\n    return KEY",
    "NAMES = np.array(['a', None, {}], object)\ndef value(x):\n    return NAMES",
    "FRAME = pandas.DataFrame({'a': [{}]})\ndef value(x):\n    return FRAME",
    "def value(x):\n    return (lambda y: y * {})(x)",
    "@jax.jit\ndef value(x):\n    return x * {}",
    "def by(k):\n    def deco(f):\n        @functools.wraps(f)\n        def g(x):\n            return k * f(x)\n"
    "        return g\n    return deco\n@by({})\ndef value(x):\n    return x",
    "def plain(x, y):\n    return x @ y\nvalue = jax.vmap(plain, in_axes=(0, {}))",
    "value = linen.initializers.normal({})",
    "class Inner(linen.Module):\n    width: int = {}\n    @linen.compact\n    def __call__(self, x):\n"
    "        return linen.Dense(self.width)(x)\nclass Outer(linen.Module):\n    @linen.compact\n"
    "    def __call__(self, x):\n        return Inner()(x)\nvalue = Outer()",
    "import beside\ndef value(x):\n    return beside.work(x)",
    "value = frozenset(['a', 'b', 'c{}'])",
    "value = {1: {}}",
    "value = eval(\"lambda x: x in {'a', 'b', 'c', {}}\")",
]
IMPORTS = (
    "import enum, functools, jax, jax.numpy as jnp, numpy as np, pandas\nfrom dataclasses import dataclass, field\n"
    "from typing import NamedTuple\nfrom flax import linen\n"
)


def digests_in_a_process_of_its_own(folder, factor, seed):
    """What a site with other code, or another hash seed, makes of each source."""
    folder.mkdir()
    (folder / "beside.py").write_text(f"def work(x):\n    return x * {factor}\n")
    for place, source in enumerate(SOURCES):
        (folder / f"own_{place}.py").write_text(IMPORTS + source.replace("{}", str(factor)))
    code = (
        "import importlib; from shoal.describe import digest\n"
        f"for i in range({len(SOURCES)}): print(digest(importlib.import_module(f'own_{{i}}').value))"
    )
    environment = {"PYTHONHASHSEED": str(seed), "PYTHONPATH": str(folder), "PATH": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    return done.stdout.split()


def test_code_that_does_something_else_is_another_plan_and_the_same_code_is_the_same_everywhere(tmp_path):
    here = digests_in_a_process_of_its_own(tmp_path / "here", 1, 1)
    there = digests_in_a_process_of_its_own(tmp_path / "there", 1, 2)
    other = digests_in_a_process_of_its_own(tmp_path / "other", 2, 1)
    assert len(here) == len(SOURCES)
    assert [source for source, a, b in zip(SOURCES, here, there, strict=True) if a != b] == []
    assert [source for source, a, b in zip(SOURCES, here, other, strict=True) if a == b] == []


def test_many_helpers_that_lead_to_each_other_are_each_described_once():
    names: dict[str, object] = {}
    layers = [
        f"def f{i}(x): return {' + '.join(f'f{j}(x)' for j in range(max(i - 3, 0), i)) or 'x'}" for i in range(40)
    ]
    exec("\n".join(layers), names)
    assert len(json.dumps(describe(names["f39"]))) < 100_000


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
    assert describe(shoal.TopK(0.5)) == {"is": "shoal.TopK", "fraction": 0.5}
    assert len(json.dumps(describe(np.linalg.norm))) < 100


def test_a_global_without_a_description_is_refused_by_name():
    with pytest.raises(PlanError, match="reads NAMELESS"):
        describe(reads_nameless)


NAMELESS = object()


def reads_nameless(x):
    return NAMELESS
