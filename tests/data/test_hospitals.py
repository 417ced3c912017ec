"""The four hospitals beside the file itself, read by the csv module."""

from __future__ import annotations

import csv
import io
from importlib.resources import files

import numpy as np
import pytest

import shoal
from shoal.data.hospitals import FEATURES

USED = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalch", "exang", "oldpeak")
NAMES = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")


@pytest.fixture(scope="module")
def population():
    return shoal.hospitals()


@pytest.fixture(scope="module")
def patients():
    """The complete rows of the file, by hospital as the file says."""
    text = (files("shoal.data") / "heart_disease_uci.csv").read_text("utf-8")
    complete = [row for row in csv.DictReader(io.StringIO(text)) if "" not in [row[name] for name in USED]]
    return {name: [row for row in complete if row["dataset"] == name] for name in NAMES}


def features(row):
    return {
        "age": float(row["age"]),
        "male": row["sex"] == "Male",
        "resting blood pressure": float(row["trestbps"]),
        "cholesterol": float(row["chol"]),
        "fasting blood sugar": row["fbs"] == "TRUE",
        "maximum heart rate": float(row["thalch"]),
        "angina at exercise": row["exang"] == "TRUE",
        "ST depression": float(row["oldpeak"]),
        "atypical angina": row["cp"] == "atypical angina",
        "non-anginal pain": row["cp"] == "non-anginal",
        "asymptomatic": row["cp"] == "asymptomatic",
        "ST-T abnormality": row["restecg"] == "st-t abnormality",
        "left ventricular hypertrophy": row["restecg"] == "lv hypertrophy",
    }


def test_there_are_four_hospitals_with_740_patients(population):
    assert population.names == NAMES
    assert population.counts.tolist() == [303, 261, 46, 130]
    assert population.columns["x"].shape == (740, 13)
    assert population.columns["x"].dtype == np.float32
    assert population.usable.all()


def test_labels_are_0_or_1_and_every_hospital_has_both(population):
    assert all(set(population[name].rows("y")) == {0, 1} for name in population)


def test_every_patient_is_the_files(population, patients):
    stray = next(row for row in patients["Cleveland"] if row["id"] == "304")
    patients = patients | {
        "Cleveland": [row for row in patients["Cleveland"] if row is not stray],
        "Hungary": [stray, *patients["Hungary"]],
    }
    for name in NAMES:
        wanted = [[float(features(row)[feature]) for feature in FEATURES] for row in patients[name]]
        np.testing.assert_array_equal(population[name].rows("x"), np.array(wanted, np.float32))
        assert population[name].rows("y").tolist() == [int(row["num"] != "0") for row in patients[name]]


def test_every_word_of_the_file_is_known(patients):
    words = {name: {row[name] for rows in patients.values() for row in rows} for name in USED}
    assert words["sex"] == {"Male", "Female"}
    assert words["fbs"] == words["exang"] == {"TRUE", "FALSE"}
    assert words["cp"] == {"typical angina", "atypical angina", "non-anginal", "asymptomatic"}
    assert words["restecg"] == {"normal", "st-t abnormality", "lv hypertrophy"}


def test_row_304_is_hungarys_first_though_the_file_says_cleveland(population, patients):
    (stray,) = [row for row in patients["Cleveland"] if int(row["id"]) > 303]
    assert stray["id"] == "304"
    assert population["Hungary"].rows("x")[0].tolist() == pytest.approx(
        [float(features(stray)[feature]) for feature in FEATURES]
    )
    assert len(patients["Cleveland"]) == population.counts[0] + 1


def test_switzerlands_cholesterol_is_0_and_stays_so(population):
    column = FEATURES.index("cholesterol")
    assert not population["Switzerland"].rows("x")[:, column].any()
    assert population["Cleveland"].rows("x")[:, column].all()
