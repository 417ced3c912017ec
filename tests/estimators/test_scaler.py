"""The federated scaler beside StandardScaler on the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.preprocessing import StandardScaler

from shoal import FederatedStandardScaler


@pytest.fixture
def table(random):
    """Features on different scales, one constant; and uneven clients, one with a single row."""
    x = random.normal(size=(200, 4)) * [1.0, 100.0, 1e-3, 1.0] + [0.0, 500.0, 1e-2, 0.0]
    x[:, 3] = 7.0
    groups = random.integers(0, 5, 200) ** 2
    groups[0] = 99
    return x, groups


def test_it_is_standard_scaler_on_the_pooled_rows(table):
    x, groups = table
    mine, pooled = FederatedStandardScaler().fit(x, groups=groups), StandardScaler().fit(x)
    for name in ("mean_", "var_", "scale_"):
        np.testing.assert_allclose(getattr(mine, name), getattr(pooled, name), rtol=1e-12)
    assert mine.n_samples_seen_ == pooled.n_samples_seen_ == 200
    np.testing.assert_allclose(mine.transform(x), pooled.transform(x), rtol=1e-11, atol=1e-12)
    np.testing.assert_allclose(mine.inverse_transform(mine.transform(x)), x, rtol=1e-12)


def test_features_far_from_zero_keep_their_deviation(table):
    x, groups = table
    far = x[:, :3] * [1.0, 1e-3, 1.0] + [1.7e9, 1e8, -3.0]
    far = np.c_[far, np.full(len(far), 0.1), np.full(len(far), 1e7) + 0.3]
    mine, pooled = FederatedStandardScaler().fit(far, groups=groups), StandardScaler().fit(far)
    np.testing.assert_allclose(mine.mean_, pooled.mean_, rtol=1e-14)
    np.testing.assert_allclose(mine.scale_, pooled.scale_, rtol=1e-7)
    assert mine.scale_[3:].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(mine.transform(far), pooled.transform(far), rtol=1e-6, atol=1e-6)


def test_float32_stays_float32_and_whole_numbers_become_floats(table):
    x, groups = table
    for given, kept in ((np.float32, np.float32), (np.int64, np.float64)):
        rows = x.astype(given)
        mine = FederatedStandardScaler().fit(rows, groups=groups)
        assert mine.transform(rows).dtype == mine.inverse_transform(rows).dtype == kept
        np.testing.assert_allclose(mine.transform(rows), StandardScaler().fit_transform(rows), rtol=2e-3, atol=1e-5)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_go_in_and_come_out(table, library):
    frames = pytest.importorskip(library)
    x, groups = table
    frame = frames.DataFrame(dict(zip("abcd", x.T, strict=True)))
    mine = FederatedStandardScaler().set_output(transform=library).fit(frame, groups=frames.Series(groups))
    out = mine.transform(frame)
    assert isinstance(out, frames.DataFrame)
    assert list(out.columns) == list("abcd") == mine.feature_names_in_.tolist() == mine.get_feature_names_out().tolist()
    np.testing.assert_allclose(out.to_numpy(), StandardScaler().fit_transform(x), rtol=1e-11, atol=1e-12)


def test_fit_without_groups_warns_and_is_the_pooled_fit(table):
    x, _ = table
    with pytest.warns(UserWarning, match="fit got no groups") as caught:
        mine = FederatedStandardScaler().fit(x)
    assert caught[0].filename == __file__
    np.testing.assert_allclose(mine.mean_, x.mean(0), rtol=1e-12)


def test_rows_of_another_width_and_an_unfitted_scaler_are_refused(table):
    x, groups = table
    with pytest.raises(NotFittedError):
        FederatedStandardScaler().transform(x)
    with pytest.raises(ValueError, match="X has 3 features"):
        FederatedStandardScaler().fit(x, groups=groups).transform(x[:, :3])
    with pytest.raises(ValueError, match="200 rows, but there are 3 group labels"):
        FederatedStandardScaler().fit(x, groups=[1, 2, 3])
