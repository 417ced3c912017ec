"""The `shoal` command as a person runs it, beside the same calls in Python."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import jax
import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

import shoal
from shoal.cli.app import app, main
from shoal.errors import CheckpointError, ShoalError, StudyFileError

CACHE = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
SHOAL = str(Path(sys.executable).parent / "shoal")
STUDY = """\
import numpy as np
import shoal

plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), client_optimizer=shoal.sgd(0.1)), rounds=6)
x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
population = shoal.Population.from_arrays(x, (x[:, 0] > 0).astype(np.int32), groups=np.arange(40) % 4)
test = population
every = 3
"""


def study():
    """The same in Python: plan and population."""
    plan = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3), client_optimizer=shoal.sgd(0.1)), rounds=6)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    return plan, shoal.Population.from_arrays(x, (x[:, 0] > 0).astype(np.int32), groups=np.arange(40) % 4)


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory):
    """An environment with a cache of compiled programs of its own, and lines long enough for a table."""
    return {**os.environ, "XDG_CACHE_HOME": str(tmp_path_factory.mktemp("cache")), "COLUMNS": "160"}


@pytest.fixture
def person(tmp_path, surroundings):
    """Runs the console script in a folder that holds a study, as a person would."""
    (tmp_path / "study.py").write_text(STUDY)

    def run(*arguments):
        return subprocess.run(
            [SHOAL, *arguments],
            cwd=tmp_path,
            env=surroundings,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run


@pytest.fixture
def command(tmp_path, surroundings):
    """Runs the command in this process, in such a folder; JAX's settings are put back."""
    (tmp_path / "study.py").write_text(STUDY)
    before = {name: jax.config.values[name] for name in CACHE}
    with contextlib.chdir(tmp_path):
        yield lambda *arguments: CliRunner().invoke(app, arguments, env=surroundings)
    for name, value in before.items():
        jax.config.update(name, value)


def history(text):
    """The rounds of a JSON answer, but for how long they took."""
    return timeless(json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))["history"])


def timeless(rows):
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_the_version_is_the_packages(person):
    done = person("--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"shoal {version('shoal')}\n", "")


def test_without_arguments_it_tells_its_commands(command):
    said = command().output
    for name in ("demo", "plan", "simulate"):
        assert re.search(rf"\b{name}\b", said)
    assert "hospitals" in command("demo").output


def test_a_plan_is_printed_as_python_prints_it_and_then_what_it_costs(command):
    done = command("plan", "study.py")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{study()[0]}\nepsilon ")
    assert "\nnetwork " in done.stdout


def test_a_plans_json_has_its_digest_and_description(command):
    done = command("plan", "study.py", "--json")
    plan, _ = study()
    told = json.loads(done.stdout)
    assert told.pop("network")["runs"]
    assert told.pop("privacy")["epsilon"] is None
    assert told.pop("derivation") is None
    assert told == {"digest": plan.digest(), "plan": json.loads(json.dumps(plan.describe()))}


def test_a_plan_needs_no_population(command, tmp_path):
    (tmp_path / "plan.py").write_text(STUDY.partition("x = ")[0])
    assert command("plan", "plan.py").stdout.startswith(f"{study()[0]}\n")


def test_a_simulations_json_is_the_history_that_python_gives(command):
    plan, population = study()
    for seed in (0, 7):
        done = command("simulate", "study.py", "--json", "--seed", str(seed))
        assert done.exit_code == 0
        answer = json.loads(done.stdout)
        assert (answer["plan"], answer["seed"]) == (plan.digest(), seed)
        result = shoal.simulate(plan, population, test=population, every=3, seed=seed)
        assert history(done.stdout) == timeless(result.history.rows)
        assert [row["round"] for row in answer["history"]] == [1, 2, 3, 4, 5, 6]


def test_a_simulations_table_has_the_rounds_that_were_measured(person):
    done = person("simulate", "study.py")
    assert (done.returncode, done.stderr) == (0, "")
    head, *lines = done.stdout.splitlines()
    plan, population = study()
    rows = shoal.simulate(plan, population, test=population, every=3).history.rows
    assert re.split(r"\s{2,}", head) == [
        "round",
        "clients",
        "rejected",
        "loss",
        "seconds",
        "test accuracy",
        "test loss",
    ]
    assert [line.split()[0] for line in lines] == ["3", "6"]
    assert float(lines[-1].split()[-1]) == pytest.approx(rows[-1]["test loss"], rel=1e-3)


def test_the_readable_runtime_gives_the_same_model(command):
    compiled, local = (
        history(command("simulate", "study.py", "--json", "--runtime", r).stdout) for r in ("compiled", "local")
    )
    assert local[-1]["test loss"] == pytest.approx(compiled[-1]["test loss"], rel=1e-6)


def test_secure_sums_in_full_give_the_same_model_to_the_bit(command, tmp_path):
    chain = "aggregation=shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(threshold=3) >> shoal.Mean())"
    (tmp_path / "masked.py").write_text(STUDY.replace("client_optimizer=shoal.sgd(0.1))", chain))
    full, unmasked = (
        history(command("simulate", "masked.py", "--json", *how).stdout)
        for how in (("--secure", "full"), ("--runtime", "local"))
    )
    assert full == unmasked
    refused = command("simulate", "study.py", "--secure", "full").exception
    assert "a secure sum is what runs in full" in str(refused)


def test_a_plot_is_a_png_file(command, tmp_path):
    assert command("simulate", "study.py", "--plot", "history.png").exit_code == 0
    assert (tmp_path / "history.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


@pytest.mark.parametrize("plot", ["no/such/folder/history.png", "history.nonsense"])
def test_a_plot_that_cannot_be_saved_is_an_error_of_shoals(command, plot):
    done = command("simulate", "study.py", "--plot", plot)
    assert isinstance(done.exception, ShoalError) or Path(plot).is_file()


def test_a_run_that_is_finished_is_not_run_again_from_its_checkpoint(command, tmp_path):
    first, second = (command("simulate", "study.py", "--json", "--checkpoint", "run.safetensors") for _ in range(2))
    assert first.exit_code == second.exit_code == 0
    assert first.stdout == second.stdout  # to the second's billionth: nothing was computed
    assert history(first.stdout) == history(command("simulate", "study.py", "--json").stdout)
    other = command("simulate", "study.py", "--checkpoint", "run.safetensors", "--seed", "1")
    assert isinstance(other.exception, CheckpointError)
    assert "of another seed" in str(other.exception)
    assert [path.name for path in tmp_path.glob("run*")] == ["run.safetensors"]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_rounds_are_logged_and_the_model_is_saved(command, tmp_path, kind):
    done = command("simulate", "study.py", "--json", "--log", f"rounds.{kind}", "--save", "model.safetensors")
    frame = (pandas.read_csv if kind == "csv" else pandas.read_parquet)(tmp_path / f"rounds.{kind}")
    assert frame["loss"].tolist() == [row["loss"] for row in history(done.stdout)]
    plan, population = study()
    vector = shoal.load_vector("model.safetensors", plan.algorithm.model)
    assert vector.tobytes() == shoal.simulate(plan, population).vector.tobytes()


def test_a_log_is_of_a_kind_that_is_known(command):
    done = command("simulate", "study.py", "--log", "rounds.txt")
    assert isinstance(done.exception, ShoalError)
    assert "a log is a .csv or a .parquet file, and rounds.txt is neither" in str(done.exception)


def test_a_studys_callbacks_follow_its_run(command, tmp_path):
    early = "callbacks = [shoal.EarlyStop('test x', patience=1, mode='max')]\ntest = lambda state: {'x': 0.0}\n"
    (tmp_path / "study.py").write_text(STUDY.replace("rounds=6", "rounds=30") + early)
    sentence = "stopped after round 6 of 30: test x did not get over its 0 of round 3 in 1 evaluations"
    assert command("simulate", "study.py").stdout.splitlines()[-1] == sentence
    assert json.loads(command("simulate", "study.py", "--json").stdout)["stopped"] == sentence


def test_population_and_test_may_be_functions(command, tmp_path):
    wanted = history(command("simulate", "study.py", "--json").stdout)
    lazy = STUDY.replace("population =", "made =").replace("test = population\n", "")
    (tmp_path / "lazy.py").write_text(lazy + "def population():\n    return made\ntest = lambda: made\n")
    assert history(command("simulate", "lazy.py", "--json").stdout) == wanted


def test_a_study_in_another_folder_imports_the_module_beside_it(person, tmp_path):
    folder = tmp_path / "trial"
    folder.mkdir()
    (folder / "sites.py").write_text(STUDY)
    (folder / "study.py").write_text("import sites\nplan, population = sites.plan, sites.population\n")
    done = person("simulate", "trial/study.py", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    assert [row["round"] for row in history(done.stdout)] == [1, 2, 3, 4, 5, 6]


def test_a_population_that_is_a_function_imports_the_module_beside_it_too(command, tmp_path):
    (tmp_path / "late_sites.py").write_text(STUDY)
    late = "def population():\n    import late_sites\n    return late_sites.population\n"
    (tmp_path / "study.py").write_text(STUDY.partition("x = ")[0] + late)
    done = command("simulate", "study.py", "--json")
    sys.modules.pop("late_sites", None)
    assert done.exception is None
    assert len(history(done.stdout)) == 6


def test_a_history_that_diverged_is_json_all_the_same(command, tmp_path):
    (tmp_path / "study.py").write_text(STUDY.replace("logistic(3)", "linear(3)").replace("sgd(0.1)", "sgd(1e25)"))
    assert len(history(command("simulate", "study.py", "--json").stdout)) == 6


@pytest.mark.parametrize(
    ("text", "arguments", "message"),
    [
        (None, ["simulate"], r"there is no file study\.py"),
        ("y = 1\n\nplan = = 2\n", ["plan"], r"study\.py, line 3: SyntaxError"),
        (STUDY + "1 / 0\n", ["simulate"], r"study\.py, line 9: ZeroDivisionError"),
        (STUDY, ["simulate", "--runtime", "quick"], "a runtime is 'auto', 'compiled' or 'local', not 'quick'"),
    ],
    ids=["no file", "syntax", "exception", "runtime"],
)
@pytest.mark.usefixtures("command")
def test_a_mistake_is_one_sentence_and_status_2(tmp_path, monkeypatch, capsys, text, arguments, message):
    path = tmp_path / "study.py"
    path.unlink() if text is None else path.write_text(text)
    first, *more = arguments
    monkeypatch.setattr(sys, "argv", ["shoal", first, "study.py", *more])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    (sentence,) = said.err.strip().splitlines()
    assert sentence.startswith("shoal: ")
    assert re.search(message, sentence)


@pytest.mark.parametrize(
    ("change", "arguments", "message"),
    [
        (("plan =", "scheme ="), [], "defines no plan"),
        (("rounds=6", "rounds=0"), [], r"study\.py, line 4: a plan has at least one round"),
        (("every = 3", "every = 0"), [], "every is a number of rounds between two evaluations, not 0"),
        (("every = 3", "every = 'ten'"), [], "ten"),
        (("test = population", "test = 3"), [], "test"),
        (("test = population", "callbacks = 3"), [], "callbacks is a list, such as .*, not 3"),
        (("test = population", "population = 5"), [], "population"),
        (("test = population", "population = [x]"), [], "population"),
        (("test = population", "def population():\n    return 1 / 0"), [], r"study\.py, line 8: ZeroDivisionError"),
        (("every = 3", ""), ["--seed", "-1"], "a seed is a whole number"),
        (("every = 3", ""), ["--checkpoint", "."], "is a folder"),
        (("every = 3", ""), ["--checkpoint", "study.py/run"], "nothing can be written to study.py"),
    ],
    ids=[
        "no plan",
        "no rounds",
        "every 0",
        "every a word",
        "test a number",
        "callbacks a number",
        "population a number",
        "population a list",
        "function that fails",
        "seed",
        "checkpoint a folder",
        "checkpoint in a file",
    ],
)
def test_every_other_mistake_is_an_error_of_shoals(command, tmp_path, change, arguments, message):
    (tmp_path / "study.py").write_text(STUDY.replace(*change, 1))
    done = command("simulate", "study.py", *arguments)
    assert isinstance(done.exception, ShoalError)
    assert re.search(message, str(done.exception))
    assert done.stdout == ""


def test_a_population_is_asked_for_by_name(command, tmp_path):
    (tmp_path / "study.py").write_text(STUDY.partition("x = ")[0])
    with pytest.raises(StudyFileError, match="defines no population"):
        raise command("simulate", "study.py").exception


LONG = """\
import signal
import sys
from pathlib import Path

import numpy as np
import shoal

random = np.random.default_rng(0)
x = random.normal(size=(1_400, 50)).astype(np.float32)
population = shoal.Population.from_arrays(x, x @ random.normal(size=50), groups=np.arange(1_400) % 7)
parts = AGGREGATION
model, sgd = shoal.models.linear(50), shoal.sgd(1e-6)
work = shoal.FedAvg(model, epochs=100, batch_size=4, order="given", client_optimizer=sgd, aggregation=parts)
plan = shoal.Plan(work, rounds=80)
every = 40

def measure(state):
    print("measured", file=sys.stderr, flush=True)
    if Path("interrupt me").exists():
        Path("interrupt me").unlink()
        signal.raise_signal(signal.SIGINT)
    return {"size": float(np.abs(state.vector).sum())}

def test():
    return measure
"""
AGGREGATIONS = {
    "nothing": "shoal.weighted_mean()",
    "what was left out": "shoal.Remember(shoal.TopK(0.1)) >> shoal.Weigh(400) >> shoal.PlainSum() >> shoal.Mean()",
}


SHORT = LONG.replace("epochs=100", "epochs=1").replace("AGGREGATION", AGGREGATIONS["nothing"])


def interrupted(folder, surroundings):
    """A run with a checkpoint that gets Ctrl-C while it trains: a little after the first measurement."""
    process = subprocess.Popen(
        [SHOAL, "simulate", "long.py", "--checkpoint", "run.safetensors"],
        cwd=folder, env=surroundings, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        assert process.stderr.readline() == "measured\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (130, "")
    *before, sentence = stderr.splitlines()
    assert any("finishing this round, then saving" in line for line in before)
    return ["measured", *(line for line in before if line == "measured"), sentence]


@pytest.mark.parametrize("remembered", AGGREGATIONS)
def test_after_ctrl_c_the_same_command_goes_on_to_the_same_end(person, tmp_path, surroundings, remembered):
    (tmp_path / "long.py").write_text(LONG.replace("AGGREGATION", AGGREGATIONS[remembered]))
    *measured, sentence = interrupted(tmp_path, surroundings)
    assert sentence == "shoal: interrupted; run the same command again to go on from run.safetensors"
    resumed = person("simulate", "long.py", "--checkpoint", "run.safetensors", "--json")
    assert measured + resumed.stderr.splitlines() == ["measured"] * 2  # neither was made twice
    assert history(resumed.stdout) == history(person("simulate", "long.py", "--json").stdout)


def test_ctrl_c_while_the_model_is_measured_leaves_a_run_to_go_on_from(command, tmp_path):
    (tmp_path / "long.py").write_text(SHORT)
    (tmp_path / "interrupt me").touch()
    assert command("simulate", "long.py", "--checkpoint", "run.safetensors").exit_code == 130
    resumed = history(command("simulate", "long.py", "--checkpoint", "run.safetensors", "--json").stdout)
    assert [row["round"] for row in resumed] == list(range(1, 81))
    assert resumed == history(command("simulate", "long.py", "--json").stdout)


def test_ctrl_c_without_a_checkpoint_says_how_to_have_one(command, tmp_path):
    (tmp_path / "long.py").write_text(SHORT)
    (tmp_path / "interrupt me").touch()
    done = command("simulate", "long.py")
    assert done.exit_code == 130
    assert (
        done.stderr.splitlines()[-1] == "shoal: interrupted; the run was not saved: name a --checkpoint to go on later"
    )
    assert not list(tmp_path.glob("*.safetensors"))
