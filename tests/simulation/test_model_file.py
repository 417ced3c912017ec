"""Models on disk: plain safetensors, whole, and refused by every other model."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import shoal
from shoal import SaveModel, models
from shoal.errors import CallbackError, CheckpointError, SettingError
from tests.conftest import classification

LABELS = classification(sizes=(7, 3, 12, 5))
MODEL = models.mlp(4, hidden=(3,), classes=2)
WORK = shoal.FedAvg(MODEL, batch_size=4)
PLAN = shoal.Plan(WORK, rounds=10)


def vector_after(rounds):
    return shoal.simulate(shoal.Plan(WORK, rounds=rounds), LABELS).vector


def header(path):
    with safe_open(path, "numpy") as file:
        return file.metadata()


def test_a_saved_model_is_read_by_plain_safetensors_and_by_us(tmp_path):
    result, path = shoal.simulate(PLAN, LABELS), tmp_path / "model.safetensors"
    result.save(path)
    arrays = load_file(path)
    assert arrays.keys() == result.params.keys()
    assert all((arrays[name] == array).all() for name, array in result.params.items())
    assert shoal.load_vector(path, MODEL).tobytes() == result.vector.tobytes()
    assert header(path) == {
        "format": "shoal model 1",
        "plan": PLAN.digest(),
        "round": "10",
        "layout": MODEL.layout.digest(),
    }


def test_arrays_that_others_saved_under_the_models_names_are_a_model(tmp_path):
    vector = np.arange(MODEL.layout.size, dtype=np.float32)
    arrays = MODEL.layout.unflatten(vector)
    save_file(dict(reversed(arrays.items())), tmp_path / "model")
    assert (shoal.load_vector(tmp_path / "model", MODEL) == vector).all()


def test_a_model_is_saved_between_evaluations_and_after_the_last_round(tmp_path):
    path = tmp_path / "model"
    seen = {}

    class Looks:
        every = 1

        def begin(self, beginning):
            return self

        def after(self, rows, run):
            if path.exists():
                seen[int(run.round)] = int(header(path)["round"])

        def close(self, rows):
            pass

    shoal.simulate(PLAN, LABELS, every=100, callbacks=[SaveModel(path, every=3), Looks()])
    assert seen == {3: 3, 4: 3, 5: 3, 6: 6, 7: 6, 8: 6, 9: 9, 10: 10}
    assert shoal.load_vector(path, MODEL).tobytes() == vector_after(10).tobytes()
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside it"


def test_the_model_of_an_interrupted_run_is_that_of_its_round(tmp_path):
    def fails(rows, run):
        raise ZeroDivisionError

    with pytest.raises(CallbackError):
        shoal.simulate(PLAN, LABELS, every=8, callbacks=[SaveModel(tmp_path / "model", every=3), fails])
    assert shoal.load_vector(tmp_path / "model", MODEL).tobytes() == vector_after(6).tobytes()


def test_the_best_model_is_kept_also_over_a_checkpoint(tmp_path):
    path, scores = tmp_path / "model", [1.0, 3.0, 2.0, 3.0, 0.0]

    def test(state):
        """The place of the state among those of rounds 2, 4, 6, 8 and 10."""
        (place,) = (i for i, v in enumerate(vectors) if np.array_equal(v, state.vector))
        return {"score": scores[place]}

    def fails(rows, run):
        if run.round == 8:
            raise ZeroDivisionError

    vectors = [vector_after(rounds) for rounds in (2, 4, 6, 8, 10)]
    given = {"test": test, "every": 2, "checkpoint": tmp_path / "run.shoal"}
    best = SaveModel(path, best="test score")
    with pytest.raises(CallbackError):
        shoal.simulate(PLAN, LABELS, callbacks=[best, fails], **given)
    shoal.simulate(PLAN, LABELS, callbacks=[best], **given)
    assert header(path)["round"] == "4"
    assert shoal.load_vector(path, MODEL).tobytes() == vectors[1].tobytes()


def test_a_finished_run_saves_its_model_when_it_is_run_again(tmp_path):
    file, path = tmp_path / "run.shoal", tmp_path / "model"
    result = shoal.simulate(PLAN, LABELS, checkpoint=file)
    shoal.simulate(PLAN, LABELS, checkpoint=file, callbacks=[SaveModel(path, every=4)])
    assert shoal.load_vector(path, MODEL).tobytes() == result.vector.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: {**a, "extra": np.zeros(2)}, "it has extra, and this model does not"),
        (lambda a: dict(list(a.items())[1:]), "it lacks .*, which this model has"),
        (
            lambda a: {name: array[:1] for name, array in a.items()},
            r"is float32\[1.*\] there, and float32\[.*\] in this",
        ),
        (lambda a: {name: array.astype(np.float64) for name, array in a.items()}, "is float64.* there, and float32"),
    ],
    ids=["more", "fewer", "shape", "dtype"],
)
def test_a_file_of_another_model_is_refused_by_the_part_that_differs(change, message, tmp_path):
    save_file(change(MODEL.layout.unflatten(np.zeros(MODEL.layout.size, np.float32))), tmp_path / "model")
    with pytest.raises(CheckpointError, match=message):
        shoal.load_vector(tmp_path / "model", MODEL)


def test_what_is_no_model_is_refused(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(CheckpointError, match="there is no such file"):
        shoal.load_vector(path, MODEL)
    path.write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="is not a model that can be read"):
        shoal.load_vector(path, MODEL)
    with pytest.raises(CheckpointError, match="is not a model that can be read"):
        shoal.load_vector(tmp_path, MODEL)
    shoal.simulate(PLAN, LABELS, checkpoint=tmp_path / "run.shoal")
    with pytest.raises(CheckpointError, match="is a shoal checkpoint 1, wanted a shoal model 1"):
        shoal.load_vector(tmp_path / "run.shoal", MODEL)
    with pytest.raises(CheckpointError, match="was not saved as a model by Shoal"):
        shoal.simulate(PLAN, LABELS, callbacks=[SaveModel(tmp_path / "run.shoal")])


def test_a_vector_is_read_for_a_model(tmp_path):
    shoal.simulate(PLAN, LABELS).save(tmp_path / "m")
    for wrong in ("m", models.logistic):
        with pytest.raises(SettingError, match="a vector is read for a model"):
            shoal.load_vector(tmp_path / "m", wrong)


def test_a_run_without_a_model_has_none_to_save(tmp_path):
    plan = shoal.Plan(shoal.analytics.MeanAndVariance(shape=(4,)), rounds=1)
    with pytest.raises(SettingError, match="MeanAndVariance trains no model that could be saved"):
        shoal.simulate(plan, LABELS, callbacks=[SaveModel(tmp_path / "model")])
    with pytest.raises(SettingError, match="MeanAndVariance trains no model"):
        shoal.simulate(plan, LABELS).save(tmp_path / "model")


def test_a_result_that_cannot_be_written_says_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="could not be written"):
        shoal.simulate(PLAN, LABELS).save(tmp_path / "file" / "model")
