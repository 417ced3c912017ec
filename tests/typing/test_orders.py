"""Every wrong chain is refused twice: by the type checker, and when it is built, with a sentence that says the fix.

The chains are in `orders.py`, one a line: those named `ok` are right, those named `bad` are the wrong ones.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from shoal.errors import OrderError

ORDERS = Path(__file__).with_name("orders.py")
CHAINS = dict(re.findall(r"^((?:ok|bad)\d+) = (.*?)(?:\s+#.*)?$", ORDERS.read_text(), re.M))
RIGHT = [name for name in CHAINS if name.startswith("ok")]
WRONG = [name for name in CHAINS if name.startswith("bad")]
FIXES = {
    "bad1": "put Clip(norm) before it",
    "bad2": "put Clip(norm) before it",
    "bad3": "put Quantize(step) before it",
    "bad4": "put Clip(norm) before it",
    "bad5": "put a sum before it, for example ... >> PlainSum() >> Gaussian(...)",
    "bad6": "put Clip before the sum",
    "bad7": "put TopK before Quantize",
    "bad8": "Gaussian takes its place",
    "bad9": "clip after Remember",
    "bad10": "add them with SecureSum(threshold=...)",
    "bad11": "finish with Over(clients=...)",
    "bad12": "put NoiseShare(...) after Quantize, or finish with Gaussian or Mean",
    "bad13": "write Collect() >> Median(...)",
    "bad14": "write PlainSum() >> Gaussian(...)",
    "bad15": "put Quantize(step) before it",
    "bad16": "put Quantize(step) before it",
    "bad17": "put Clip(norm) before it",
    "bad18": "finish with Over(clients=...)",
    "bad19": "add them with PlainSum()",
    "bad20": "add them with PlainSum()",
    "bad21": "put TopK before LocalGaussian",
    "bad22": "put LocalGaussian(...) before it",
    "bad23": "leave Quantize out before LocalLaplace",
    "bad24": "the noise is in it already",
    "bad25": "put Clip(norm) before it",
}


def build(chain: str) -> object:
    names = {part: getattr(shoal, part) for part in dir(shoal) if part[0].isupper()}
    return eval(chain, names | {"Blt": shoal.matrices.Blt})


def test_every_wrong_chain_has_its_fix():
    assert len(WRONG) == 25
    assert set(FIXES) == set(WRONG)


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_chain_is_built_and_prints_as_it_was_written(name):
    chain = build(CHAINS[name])
    assert build(str(chain)) == chain


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_chain_is_refused_with_its_fix(name):
    with pytest.raises(OrderError) as refused:
        build(CHAINS[name])
    assert FIXES[name] in str(refused.value)


def test_the_type_checker_refuses_each_wrong_chain_and_no_right_one(tmp_path):
    settings = {"typeCheckingMode": "strict", "include": [str(ORDERS)], "reportWildcardImportFromLibrary": False}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "-p", str(tmp_path)]
    command += ["--pythonpath", sys.executable]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=False).stdout)
    lines = ORDERS.read_text().splitlines()
    refused = {
        lines[problem["range"]["start"]["line"]].split(" = ")[0]
        for problem in found["generalDiagnostics"]
        if problem.get("rule") == "reportOperatorIssue"
    }
    assert refused == set(WRONG)


def test_a_finish_first_and_nonsense_are_refused_with_a_sentence():
    with pytest.raises(OrderError, match="nothing follows Mean"):
        shoal.Mean() >> shoal.PlainSum()
    with pytest.raises(OrderError, match="a chain goes on with a step or a sum, not with a int"):
        shoal.Clip(1.0) >> 3
    with pytest.raises(OrderError, match="a sum is followed by a finish"):
        shoal.Clip(1.0) >> shoal.PlainSum() >> 3
    with pytest.raises(OrderError, match="works on one client's value"):
        shoal.mean() >> shoal.Clip(1.0)
    with pytest.raises(OrderError, match="weighed once"):
        shoal.Weigh(2) >> shoal.Weigh(3) >> shoal.PlainSum() >> shoal.Mean()
    with pytest.raises(OrderError, match="Remember holds a step that leaves out"):
        shoal.Remember(shoal.Weigh(3))
