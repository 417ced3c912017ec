"""Callbacks: runs that stop early, logs that are neither doubled nor cut, functions of one's own."""

from __future__ import annotations

import csv
import shutil
import struct
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX.proto.event_pb2 import Event

import shoal
from shoal import CsvLog, EarlyStop, ParquetLog, SaveModel, TensorBoard, models
from shoal.errors import CallbackError, DivergedError, SettingError, ShoalError
from shoal.simulation.callbacks.best import Best
from tests.conftest import classification

LABELS = classification(sizes=(7, 3, 12, 5))
WORK = shoal.FedAvg(models.logistic(4), batch_size=4)
PLAN = shoal.Plan(WORK, rounds=12)


def run(*callbacks, plan=PLAN, population=LABELS, test=LABELS, every=2, **more):
    return shoal.simulate(plan, population, test=test, every=every, callbacks=list(callbacks), **more)


def failing(at):
    def fails(rows, run):
        if run.round == at:
            raise ZeroDivisionError("on purpose")

    return fails


# Logs, each with a reader that is not ours


def read_csv(path):
    with path.open(newline="") as file:
        return [
            {name: text == "True" if name == "released" else float(text) for name, text in row.items() if text}
            for row in csv.DictReader(file)
        ]


def read_parquet(path):
    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [{name: value for name, value in row.items() if value is not None} for row in rows]


def read_events(folder):
    rows: dict[int, dict[str, float]] = {}
    (file,) = folder.iterdir()
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        event = Event.FromString(data[12 : 12 + length])
        for scalar in event.summary.value:
            row = rows.setdefault(event.step, {"round": event.step})
            assert scalar.tag not in row, "no scalar of a round comes twice"
            row[scalar.tag] = scalar.simple_value
        data = data[12 + length + 4 :]
    return list(rows.values())


LOGS = {
    "csv": (CsvLog, read_csv),
    "parquet": (ParquetLog, read_parquet),
    "tensorboard": (TensorBoard, read_events),
}


def columns(history, log):
    """A history's rows, as the log names and rounds them."""
    if log != "tensorboard":
        return list(history.rows)
    names = {"loss": "train/loss", "test loss": "test/loss", "test accuracy": "test/accuracy"}
    return [
        {
            name if name == "round" else names.get(name, f"rounds/{name}"): float(np.float32(value))
            for name, value in row.items()
        }
        for row in history
    ]


@pytest.mark.parametrize("log", LOGS)
def test_a_log_has_every_row_of_the_history(log, tmp_path):
    write, read = LOGS[log]
    result = run(write(tmp_path / "deep" / "log"), every=5)
    assert read(tmp_path / "deep" / "log") == columns(result.history, log)


@pytest.mark.parametrize("log", LOGS)
def test_rounds_without_a_metric_are_in_the_log(log, tmp_path):
    write, read = LOGS[log]
    plan = shoal.Plan(WORK, rounds=30, cohort=shoal.Poisson(0.2))
    result = run(write(tmp_path / "log"), plan=plan, seed=2)
    assert {row["clients"] for row in result.history} > {0}
    assert read(tmp_path / "log") == columns(result.history, log)


@pytest.mark.parametrize("log", LOGS)
def test_a_log_goes_on_with_its_run_neither_doubled_nor_cut(log, tmp_path):
    write, read = LOGS[log]
    path, file, older = tmp_path / "log", tmp_path / "run.shoal", tmp_path / "older"
    with pytest.raises(CallbackError):
        run(write(path), failing(6), checkpoint=file)
    assert [row["round"] for row in read(path)] == [1, 2, 3, 4, 5, 6]
    shutil.copy(file, older)
    first = run(write(path), checkpoint=file)
    assert read(path) == columns(first.history, log)
    shutil.copy(older, file)  # as after a kill: the log is ahead of the checkpoint
    second = run(write(path), checkpoint=file)
    assert read(path) == columns(second.history, log)
    assert len(second.history) == 12


@pytest.mark.parametrize("log", LOGS)
def test_a_new_run_replaces_an_old_log(log, tmp_path):
    write, read = LOGS[log]
    run(write(tmp_path / "log"))
    result = run(write(tmp_path / "log"), plan=shoal.Plan(WORK, rounds=3))
    assert read(tmp_path / "log") == columns(result.history, log)


@pytest.mark.parametrize("log", LOGS)
def test_what_was_measured_is_in_the_log_after_ctrl_c(log, tmp_path):
    write, read = LOGS[log]
    states = []

    def presses(state):
        states.append(state)
        if len(states) == 3:
            raise KeyboardInterrupt
        return {}

    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path / "log"), test=presses)
    assert [row["round"] for row in read(tmp_path / "log")] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_diverged_leaves_its_last_rounds_in_the_log(tmp_path):
    work = shoal.FedAvg(models.logistic(4), client_optimizer=shoal.sgd(100.0), server_optimizer=shoal.sgd(3e38))
    with pytest.raises(DivergedError, match="after round"):
        run(CsvLog(tmp_path / "log"), plan=shoal.Plan(work, rounds=12), test=None)
    assert len(read_csv(tmp_path / "log")) >= 1


def test_a_log_of_parquet_is_saved_while_the_run_goes_on(tmp_path):
    seen = []
    run(
        ParquetLog(tmp_path / "log", save_every_s=0.0),
        lambda rows, run: seen.append(len(read_parquet(tmp_path / "log"))),
    )
    assert seen == [2, 4, 6, 8, 10, 12]


def test_events_of_others_in_the_folder_stay(tmp_path):
    other = tmp_path / "events.out.tfevents.1.host"
    other.write_bytes(b"")
    run(TensorBoard(tmp_path))
    run(TensorBoard(tmp_path))
    assert other.exists()
    assert len(list(tmp_path.iterdir())) == 2


def never(state):
    raise AssertionError("no round ran")


@pytest.mark.parametrize("write", [CsvLog, ParquetLog, TensorBoard, SaveModel])
def test_a_place_where_nothing_can_be_written_is_refused_before_the_first_round(write, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CallbackError, match=rf"{write.__name__}\(.*could not begin: "):
        run(write(tmp_path / "file" / "log"), test=never)
    if write is not TensorBoard:
        with pytest.raises(CallbackError, match="could not begin: it is a folder"):
            run(write(tmp_path), test=never)


@pytest.mark.parametrize("write", [CsvLog, ParquetLog, SaveModel])
def test_a_file_of_something_else_is_refused_and_kept(write, tmp_path):
    path = tmp_path / "precious"
    for precious in (b"name,age\n", b"round,players\n", b"\x89PNG\xff\n"):
        path.write_bytes(precious)
        with pytest.raises(ShoalError, match=r"is there and .*: name another file"):
            run(write(path), test=never)
        assert path.read_bytes() == precious


# Early stop


@given(st.lists(st.integers(-3, 3) | st.just(float("nan")), min_size=1, max_size=20), st.sampled_from(["min", "max"]))
def test_the_best_value_is_the_first_smallest_or_largest(values, mode):
    best = Best("m", mode)
    for place, value in enumerate(values):
        best = best.after({"round": place + 1, "m": float(value)})
    ordered = np.nan_to_num(np.array(values, float) * (1 if mode == "min" else -1), nan=np.inf)
    first = int(np.argmin(ordered))
    if np.isinf(ordered[first]):
        assert best.value is None
        assert best.since == len(values)
    else:
        assert (best.value, best.round, best.since) == (values[first], first + 1, len(values) - 1 - first)


def test_a_lower_brier_score_is_better_and_other_scores_are_higher():
    assert [EarlyStop(f"test {name}").mode for name in ("Brier score", "f1 score")] == ["min", "max"]


def test_an_improvement_is_more_than_the_least_that_was_asked():
    best = Best("m", "max", least=0.5)
    for number, value in enumerate([0.0, 0.4, 0.5, 0.6, 1.0], 1):
        best = best.after({"round": number, "m": value})
    assert (best.value, best.round, best.since) == (0.6, 4, 1)


@pytest.mark.parametrize("runtime", ["compiled", "local"])
@pytest.mark.parametrize(("metric", "every"), [("test accuracy", 2), ("loss", 3)])
def test_a_run_stops_when_the_metric_has_not_improved_for_so_many_evaluations(metric, every, runtime):
    plan = shoal.Plan(shoal.FedAvg(models.logistic(4), client_optimizer=shoal.sgd(3.0), batch_size=1), rounds=60)
    whole = run(plan=plan, every=every, runtime=runtime).history.rows[every - 1 :: every]
    signs = 1 if metric == "loss" else -1
    values = [signs * row[metric] for row in whole]
    wanted = next(place for place in range(len(values)) if place - int(np.argmin(values[: place + 1])) == 3)
    result = run(EarlyStop(metric, patience=3), plan=plan, every=every, runtime=runtime)
    assert len(result.history) == int(result.run.round) == whole[wanted]["round"] < 60
    assert result.stopped is not None
    assert result.stopped.startswith(f"stopped after round {len(result.history)} of 60: {metric} did not get ")
    assert str(result).endswith(result.stopped)
    shorter = shoal.simulate(shoal.Plan(plan.algorithm, rounds=len(result.history)), LABELS, runtime=runtime)
    assert result.vector.tobytes() == shorter.vector.tobytes()


def test_a_run_that_is_not_stopped_says_nothing():
    result = run(EarlyStop("test loss", patience=6))
    assert result.stopped is None
    assert len(result.history) == 12
    assert str(result) == str(result.history)


def test_a_value_that_is_no_number_is_no_progress():
    result = run(EarlyStop("test x", patience=2, mode="min"), test=lambda state: {"x": float("nan")})
    assert result.stopped == "stopped after round 4 of 12: test x is not a number in 2 evaluations"


def test_early_stop_waits_on_where_a_checkpoint_left_it(tmp_path):
    stop, file = EarlyStop("test x", patience=4, mode="max"), tmp_path / "run.shoal"
    steady = {"test": lambda state: {"x": 1.0}}
    with pytest.raises(CallbackError):
        run(stop, failing(6), checkpoint=file, **steady)
    resumed = run(stop, checkpoint=file, **steady)
    assert (
        resumed.stopped
        == run(stop, **steady).stopped
        == ("stopped after round 10 of 12: test x did not get over its 1 of round 2 in 4 evaluations")
    )
    again = run(stop, checkpoint=file, **steady)
    assert (again.stopped, again.vector.tobytes()) == (resumed.stopped, resumed.vector.tobytes())
    assert len(run(checkpoint=file, **steady).history) == 12, "without it the run goes on"


@pytest.mark.parametrize(
    ("callback", "test", "message"),
    [
        (
            EarlyStop("test acuracy", mode="max"),
            LABELS,
            "no metric 'test acuracy' in the history: there are loss, test",
        ),
        (EarlyStop("test loss"), None, "'test loss' is measured on a test: give simulate test"),
        (SaveModel("best", best="speed", mode="max"), None, "no metric 'speed' in the history: there are loss"),
    ],
    ids=["unknown", "no test", "unknown best"],
)
def test_a_metric_that_is_not_there_is_refused_at_the_first_evaluation(callback, test, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=message):
        run(callback, failing(4), test=test)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: EarlyStop("test loss", patience=0), "1 or more evaluations without progress, not 0"),
        (lambda: EarlyStop("test loss", least=-1), "the least improvement is 0 or more, not -1"),
        (lambda: EarlyStop("test speed"), "whether a lower 'test speed' is better is not known: say mode="),
        (lambda: EarlyStop("test loss", mode="low"), "mode is 'min' or 'max', not 'low'"),
        (lambda: EarlyStop(3), "a metric is named as in the history"),
        (lambda: SaveModel("m", every=0), "a model is saved every 1 or more rounds, not 0"),
        (lambda: SaveModel("m", every=5, best="test loss"), "leave out `every` or `best`"),
        (lambda: SaveModel("m", mode="max"), "`mode` is of `best`"),
        (lambda: ParquetLog("m", save_every_s=-1), "a log is saved every 0 or more seconds, not -1"),
        (lambda: shoal.simulate(PLAN, LABELS, callbacks=EarlyStop("loss")), "callbacks is a list"),
        (lambda: run(Recorder(every=0)), "listens every 1 or more rounds, or every=None, not 0"),
        (lambda: run(CsvLog), "a callback is a value such as CsvLog"),
        (lambda: run(3), "or a function of new rows and the run, not 3"),
        (lambda: run(lambda rows, run: 3), "a callback returns True or a sentence to stop, or None to go on, not int"),
    ],
)
def test_a_callback_that_cannot_be_is_refused(make, message):
    with pytest.raises(SettingError, match=message):
        make()


# Functions and listeners of one's own


@pytest.mark.parametrize("runtime", ["compiled", "local"])
def test_a_function_is_told_the_new_rows_and_the_run_at_each_evaluation(runtime):
    told = []
    result = run(lambda rows, run: told.append((list(rows), int(run.round))), every=5, runtime=runtime)
    assert [round for _, round in told] == [5, 10, 12]
    assert [row for rows, _ in told for row in rows] == list(result.history)
    assert [len(rows) for rows, _ in told] == [5, 5, 2]


@pytest.mark.parametrize(("answer", "reason"), [(True, "stopped the run after round 4"), ("enough", "enough")])
def test_a_function_stops_the_run(answer, reason):
    def enough(rows, run):
        return answer if run.round >= 4 else False

    result = run(enough)
    assert len(result.history) == 4
    assert result.stopped is not None
    assert result.stopped.endswith(reason)


def test_a_function_that_fails_is_named_and_what_was_measured_is_kept(tmp_path):
    file = tmp_path / "run.shoal"
    with pytest.raises(CallbackError, match=r"failing.*fails failed after round 8: ZeroDivisionError: on purpose"):
        run(failing(8), checkpoint=file, save_every_s=1e9)
    told = []
    resumed = run(lambda rows, run: told.append(rows[0]["round"]), checkpoint=file)
    assert told == [7, 9, 11], "it is told again what failed, and then the rest"
    assert resumed.vector.tobytes() == run().vector.tobytes()


@dataclass
class Recorder:
    """A callback that is its own listener."""

    every: int | None
    stops_at: int | None = None

    def begin(self, beginning):
        self.rounds, self.closed, self.behind = [], 0, len(beginning.rows)
        return self

    def after(self, rows, run):
        self.rounds += [row["round"] for row in rows]
        self.last = int(run.round)
        return self.last == self.stops_at

    def close(self, rows):
        self.closed += 1


def test_a_function_that_changes_its_rows_changes_no_history():
    result = run(lambda rows, run: [row.clear() for row in rows] and None, EarlyStop("test loss", patience=99))
    assert result.history.column("round") == list(range(1, 13))


def test_every_listener_is_closed_once_and_told_every_round_once():
    recorders = [Recorder(every) for every in (None, 1, 3, 5, 100)]
    run(*recorders, every=4)
    assert [r.rounds for r in recorders] == [list(range(1, 13))] * 5
    assert [r.closed for r in recorders] == [1] * 5
    with pytest.raises(CallbackError):
        run(*recorders, failing(8), every=4)
    assert [r.closed for r in recorders] == [1] * 5


def test_the_round_at_which_a_run_stops_is_the_last_for_everybody(tmp_path):
    recorder = Recorder(every=5)
    result = run(recorder, SaveModel(tmp_path / "model", every=6), Recorder(every=7, stops_at=7))
    assert (result.run.round, recorder.rounds, recorder.last) == (7, [1, 2, 3, 4, 5, 6, 7], 7)
    assert shoal.load_vector(tmp_path / "model", models.logistic(4)).tobytes() == result.vector.tobytes()


def test_callbacks_do_not_change_the_model():
    assert run(Recorder(every=1), Recorder(every=5)).vector.tobytes() == run().vector.tobytes()
