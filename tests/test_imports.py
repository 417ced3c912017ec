"""What `import shoal` brings in and what it leaves for later; and what is said where an extra is missing."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import shoal
from shoal.errors import MissingExtraError, ShoalError

FRAMEWORKS = {"sklearn", "pandas", "matplotlib", "torch", "flax", "equinox", "keras"}


def python(program, **environment):
    """What another Python prints."""
    return subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    ).stdout.splitlines()


def loaded_after(program):
    return set(python(f"{program}\nimport sys\nprint(*sys.modules, sep='\\n')"))


def named_in(stub):
    """The public names of a stub file."""
    imports = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    return {alias.asname or alias.name for node in imports for alias in node.names}


def test_importing_shoal_loads_no_framework():
    loaded = loaded_after("import shoal")
    assert "shoal" in loaded
    assert not loaded & (FRAMEWORKS | {"jax", "numpy", "optax"})


def test_using_shoal_and_its_command_loads_no_optional_package():
    loaded = loaded_after("import shoal\nimport shoal.cli\nshoal.simulate, shoal.models.logistic(3), shoal.Plan")
    assert {"jax", "shoal.simulation", "shoal.cli.app"} <= loaded
    assert not loaded & FRAMEWORKS


def test_commands_that_train_nothing_begin_without_jax():
    modules = ("clients", "commands", "ledger", "logs", "model", "new", "roster", "runs", "show", "token")
    loaded = loaded_after("".join(f"import shoal.cli.{module}\n" for module in modules))
    assert {"shoal.cli.app", "shoal.operator"} <= loaded
    assert not loaded & (FRAMEWORKS | {"jax", "optax"})


@pytest.mark.parametrize("package", [shoal, shoal.models], ids=lambda package: package.__name__)
def test_every_public_name_is_listed_and_there(package):
    listed = named_in(Path(package.__file__).with_suffix(".pyi"))
    assert len(listed) > 5
    assert set(package.__all__) == listed <= set(dir(package))
    there = listed if importlib.util.find_spec("torch") else {name for name in listed if "torch" not in name.lower()}
    for name in there:
        thing = getattr(package, name)
        assert getattr(thing, "__name__", name).rpartition(".")[2] == name


def test_a_name_that_is_not_public_is_no_attribute():
    with pytest.raises(AttributeError, match="FedMagic"):
        _ = shoal.FedMagic


def test_a_missing_extra_is_said_with_the_command_that_installs_it():
    error = MissingExtraError("pandas", "pandas")
    assert str(error) == "this needs pandas, which is not installed: run  pip install 'shoal[pandas]'"
    assert isinstance(error, ShoalError)
    assert isinstance(error, ImportError)


MISSING = """
import shoal
from shoal.errors import MissingExtraError
history = shoal.History(({"round": 1, "clients": 1, "rejected": 0, "loss": 0.5, "seconds": 0.1},))
for use in (
    history.plot,
    history.to_pandas,
    lambda: shoal.models.SklearnModel(None, features=1),
    lambda: shoal.FederatedClassifier,
    lambda: shoal.models.from_flax(None, shape=(1,), loss="squared"),
    lambda: shoal.models.from_equinox(None, loss="squared"),
    lambda: shoal.models.from_keras(None),
    lambda: shoal.read_csv(shoal.__file__, client="who"),
    lambda: shoal.read_parquet(shoal.__file__, client="who"),
):
    try:
        use()
    except MissingExtraError as error:
        print(error)
"""


def test_each_use_of_an_extra_that_is_not_installed_names_it(tmp_path):
    for package in ("matplotlib", "pandas", "sklearn", "flax", "equinox", "keras", "pyarrow"):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('No module named {package}')\n")
    sentence = "this needs {}, which is not installed: run  pip install 'shoal[{}]'"
    assert python(MISSING, PYTHONPATH=str(tmp_path)) == [
        sentence.format(package, extra)
        for package, extra in [
            ("matplotlib", "plot"),
            ("pandas", "pandas"),
            ("sklearn", "sklearn"),
            ("sklearn", "sklearn"),
            ("flax", "flax"),
            ("equinox", "equinox"),
            ("keras", "keras"),
            ("pyarrow", "arrow"),
            ("pyarrow", "arrow"),
        ]
    ]
