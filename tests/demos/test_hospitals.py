"""The hospitals demo: its figures beside plain NumPy, and what it prints, draws and writes."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import shoal
from shoal.cli import demo
from shoal.cli.app import main
from shoal.demos import report
from shoal.demos.hospitals import Line, Study, study

NAMES = ["Cleveland", "Hungary", "Switzerland", "VA Long Beach"]
WAYS = [
    *(f"{name} alone" for name in NAMES),
    "each its own",
    "federated",
    "federated, standardised",
    "standardised, fine-tuned",
    "pooled",
]
ROUNDS, STEPS, RATE, TUNE = 5, 5, 0.1, 10


@pytest.fixture(scope="module")
def found():
    return study(seeds=2, rounds=ROUNDS)


def descend(weights, x, y, steps=STEPS):
    for _ in range(steps):
        error = 1 / (1 + np.exp(-(x @ weights[1:] + weights[0]))) - y
        weights = weights - RATE * np.concatenate([[error.mean()], x.T @ error / len(y)])
    return weights


def learn(sites):
    """Federated averaging by hand: (x, y) of every site."""
    weights = np.zeros(14)
    for _ in range(ROUNDS):
        weights = np.average([descend(weights, *site) for site in sites], axis=0, weights=[len(y) for _, y in sites])
    return weights


def right(weights, x, y):
    return (x @ weights[1:] + weights[0] > 0) == (y == 1)


def standard(x, by):
    return (x - by.mean(0)) / np.where(by.std(0) > 0, by.std(0), 1)


def by_hand(seed):
    """Which test patients each way gets right, hospital by hospital, in float64."""
    train, test = (
        {name: (part[name].rows("x").astype(np.float64), part[name].rows("y")) for name in NAMES}
        for part in shoal.hospitals().split_examples(0.34, seed=seed)
    )
    rows = np.concatenate([x for x, _ in train.values()])
    own, own_test = ([(standard(x, train[name][0]), y) for name, (x, y) in part.items()] for part in (train, test))
    shared, shared_test = ([(standard(x, rows), y) for x, y in part.values()] for part in (train, test))
    federated = learn(shared)
    pooled = learn([tuple(np.concatenate(parts) for parts in zip(*shared, strict=True))])
    models = {
        "each its own": ([learn([site]) for site in own], own_test),
        "federated": ([learn(own)] * 4, own_test),
        "federated, standardised": ([federated] * 4, shared_test),
        "standardised, fine-tuned": ([descend(federated, *site, steps=STEPS * TUNE) for site in shared], shared_test),
        "pooled": ([pooled] * 4, shared_test),
    }
    return {
        way: [right(weights, *site) for weights, site in zip(each, tested, strict=True)]
        for way, (each, tested) in models.items()
    }


def test_the_figures_are_those_of_plain_numpy(found):
    # One patient (of 252, of 16 in Switzerland) in one split may be on the other side of a score of 0 in float32.
    seeds = [by_hand(seed) for seed in range(2)]
    for way in seeds[0]:
        line = next(line for line in found.lines if line.way == way)
        everyone = [np.concatenate(seed[way]).mean() for seed in seeds]
        assert line.accuracy["all"] == pytest.approx((np.mean(everyone), np.std(everyone)), abs=0.0025)
        assert found.accuracy(way) == line.accuracy["all"][0]
        for place, name in enumerate(NAMES):
            mean = np.mean([seed[way][place].mean() for seed in seeds])
            assert line.accuracy[name][0] == pytest.approx(mean, abs=1 / 30)


def test_every_way_has_a_line_with_every_hospital(found):
    assert (found.seeds, found.rounds) == (2, ROUNDS)
    assert [line.way for line in found.lines] == WAYS
    for line in found.lines:
        assert list(line.accuracy) == list(line.auc) == ["all", *NAMES]


def test_a_hospital_that_took_no_part_is_judged_by_models_of_the_three_others(found):
    wanted = [
        (name, way)
        for name in NAMES
        for way in ["the three others, federated", *(f"{other} alone" for other in NAMES if other != name)]
    ]
    assert [tuple(line.way.split(": ")) for line in found.held_out] == wanted
    for line, (name, _) in zip(found.held_out, wanted, strict=True):
        assert list(line.accuracy) == list(line.auc) == [name]


def test_figures_are_means_and_deviations_of_shares(found):
    for line in (*found.lines, *found.held_out):
        for mean, deviation in (*line.accuracy.values(), *line.auc.values()):
            assert 0 <= mean <= 1
            assert 0 <= deviation <= 0.5


def test_the_tables_show_every_figure(found):
    out = io.StringIO()
    for table in report.tables(found):
        Console(file=out, width=120).print(table)
    text = out.getvalue()
    assert "2 splits, 5 rounds" in text
    for line in found.lines:
        for mean, deviation in (line.accuracy["all"], line.auc["all"]):
            assert f"{mean:.3f} ± {deviation:.3f}" in text
        assert text.count(line.way) >= 2
    for line in found.held_out:
        ((mean, deviation),) = line.accuracy.values()
        assert f"{mean:.3f} ± {deviation:.3f}" in text


def test_the_plain_data_is_json_with_every_figure(found):
    data = json.loads(json.dumps(report.data(found), allow_nan=False))
    assert (data["demo"], data["seeds"], data["rounds"]) == ("hospitals", 2, ROUNDS)
    for rows, lines in ((data["rows"], found.lines), (data["held out"], found.held_out)):
        assert [row["trained"] for row in rows] == [line.way for line in lines]
        for row, line in zip(rows, lines, strict=True):
            for metric, figures in (("accuracy", line.accuracy), ("auc", line.auc)):
                assert {name: (f["mean"], f["deviation"]) for name, f in row[metric].items()} == figures


def test_a_figure_that_is_none_is_null_and_a_dash():
    nan = float("nan")
    figures = dict.fromkeys(["all", *NAMES], (0.5, 0.1))
    line = Line("pooled", figures, figures | {"all": (nan, nan), "Switzerland": (nan, nan)})
    nothing = Study(1, 1, (line,), ())
    data = json.loads(json.dumps(report.data(nothing), allow_nan=False))
    assert data["rows"][0]["auc"]["Switzerland"] == {"mean": None, "deviation": None}
    assert data["rows"][0]["auc"]["Hungary"] == {"mean": 0.5, "deviation": 0.1}
    out = io.StringIO()
    Console(file=out, width=120).print(report.tables(nothing)[1])
    assert out.getvalue().split("pooled")[1].split() == ["-", "0.500", "0.500", "-", "0.500"]


def test_the_picture_is_a_png_file(found, tmp_path):
    report.picture(found, tmp_path / "hospitals.png")
    assert (tmp_path / "hospitals.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")


def test_the_command_prints_one_json_object_and_saves_a_picture(tmp_path):
    arguments = ["hospitals", "--simulate", "--seeds", "1", "--rounds", "3", "--json", "--png", str(tmp_path / "a.png")]
    done = CliRunner().invoke(demo.app, arguments)
    assert done.exit_code == 0
    answer = json.loads(done.stdout)
    assert list(answer) == ["demo", "seeds", "rounds", "rows", "held out"]
    assert (answer["seeds"], answer["rounds"]) == (1, 3)
    assert [row["trained"] for row in answer["rows"]] == WAYS
    assert len(answer["held out"]) == 16
    assert (tmp_path / "a.png").stat().st_size > 1000
    assert f"picture saved in {tmp_path / 'a.png'}" in done.stderr


def test_a_picture_that_cannot_be_saved_is_refused_before_the_work(tmp_path):
    arguments = ["--simulate", "--seeds", "1", "--rounds", "1", "--json", "--png", str(tmp_path / "no" / "a.png")]
    done = CliRunner().invoke(demo.app, ["hospitals", *arguments])
    assert isinstance(done.exception, shoal.errors.SettingError)
    assert "there is no folder" in str(done.exception)
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("option", "message"),
    [("--seeds", "a study averages over at least one split, not 0"), ("--rounds", "at least one round, not 0")],
)
def test_a_study_of_nothing_is_refused_in_a_sentence(tmp_path, monkeypatch, capsys, option, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["shoal", "demo", "hospitals", "--simulate", option, "0"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (2, "")
    (sentence,) = said.err.strip().splitlines()
    assert sentence.startswith("shoal: ")
    assert sentence.endswith(message)
    assert not list(tmp_path.glob("*.png"))
