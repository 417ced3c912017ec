"""Policies: files of all kinds of wrongness, windows of time beside a count of minutes, and judgements that only get
stricter."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shoal
from shoal.client.policy import SECTIONS, Allowed, Denied, Past, Policy, PolicyFile, judge
from shoal.errors import PolicyError, SettingError
from shoal.wire.messages import RunInfo

NOON = datetime(2026, 11, 25, 12, 0)  # a Wednesday
FREE = shoal.Plan(shoal.FedAvg(shoal.models.logistic(13)), rounds=3)
CLIPPED = shoal.Plan(
    shoal.FedAvg(shoal.models.logistic(13), aggregation=shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Mean()), rounds=3
)
MASKED = shoal.Plan(
    shoal.FedAvg(
        shoal.models.logistic(13),
        aggregation=shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(2) >> shoal.Mean(),
    ),
    rounds=3,
)
NOISED = shoal.Plan(
    shoal.FedAvg(
        shoal.models.logistic(13),
        aggregation=shoal.Clip(1.0) >> shoal.PlainSum() >> shoal.Gaussian(2.0, clients=10),
    ),
    rounds=3,
    cohort=shoal.Poisson(0.01),  # of which a site can claim nothing
)
NOISED_SPENDS = 4.1518
"""At delta 1e-6, by the closed form for normal noise of 2 / sqrt(3) (Balle and Wang 2018, theorem 8)."""
LOCAL = shoal.Plan(
    shoal.FedAvg(
        shoal.models.logistic(13), aggregation=shoal.LocalLaplace(2.0, 1.0) >> shoal.PlainSum() >> shoal.Over(10)
    ),
    rounds=2,  # of pure epsilon 2 each
)
PLANS = (FREE, CLIPPED, MASKED, NOISED, LOCAL)


def info(plan=FREE, name="heart-2026", run="r1", minimum_cohort=3, digest=None):
    return RunInfo(run=run, name=name, plan=b"{}", plan_digest=digest or plan.digest(), minimum_cohort=minimum_cohort)


def reasons(policy, plan=FREE, about=None, past=None):
    """Why a policy refuses; empty if it does not."""
    said = judge(policy, plan, about or info(plan), past or Past(NOON))
    return " | ".join(said.reasons) if isinstance(said, Denied) else ""


def written(folder, text):
    path = folder / "policy.toml"
    path.write_text(text)
    return path


def test_the_sample_is_a_policy_that_allows_no_plan_and_names_every_key(tmp_path):
    policy = Policy.load(written(tmp_path, Policy.sample()))
    assert policy == Policy(minimum_cohort=2)
    assert "allow has neither" in reasons(policy)
    for keys in SECTIONS.values():
        assert all(f"{key} = " in Policy.sample() for key in keys)


def test_the_sample_with_every_key_set_is_a_policy(tmp_path):
    lines = [
        line.removeprefix("# ") if " = " in line and not line.startswith("# These") else line
        for line in Policy.sample().splitlines()
        if line != "allow = []"
    ]
    policy = asdict(Policy.load(written(tmp_path, "\n".join(lines))))
    assert not [name for name, value in policy.items() if value is None]
    assert policy["hours"] == "20:00-06:00" and policy["maximum_upload_bytes"] == 10_000_000


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("allow = 'any'", r"there is no section \[allow\]; there are \[plans\], \[privacy\], \[limits\]"),
        ("[planes]", r"there is no section \[planes\]"),
        ("[privacy]\nallow = 'any'", r"\[privacy\] has no key allow; it has minimum_cohort, clip_required"),
        ("[plans]\nallow = 'heart-*'", r'\[plans\] allow is "any", or a list of digests'),
        ("[plans]\nallow = ['any']", r'allow is "any", or a list'),
        ("[plans]\nallow = [3]", r'allow is "any", or a list'),
        ("[plans]\nallow = ['sha256:12']", "64 digits"),
        ("[plans]\nrequire_study_file = 1", "require_study_file is true or false, not 1"),
        ("[privacy]\nminimum_cohort = 'two'", r"\[privacy\] minimum_cohort is a whole number, 0 or more, not 'two'"),
        ("[privacy]\nminimum_cohort = 2.5", "whole number"),
        ("[privacy]\nminimum_cohort = true", "whole number"),
        ("[privacy]\nminimum_cohort = -1", "whole number"),
        ("[privacy]\nsecure_sum = 'yes'", "secure_sum is true or false"),
        ("[privacy]\nminimum_threshold = 50", "minimum_threshold is a number over 0 and at most 1, not 50"),
        ("[privacy]\nmaximum_epsilon = 0", "maximum_epsilon is a number over 0"),
        ("[privacy]\nmaximum_epsilon = inf", "maximum_epsilon is a number over 0"),
        ("[limits]\nhours = '8-17'", r"\[limits\] hours is a window of the day"),
        ("[limits]\nhours = '24:00-08:00'", "hours is a window"),
        ("[limits]\nhours = '08:00-08:00'", "hours is a window"),
        ("[limits]\nhours = 08:00:00", "hours is a window"),
        ("[limits]\ndays = ['monday']", "days is a list of mon, tue"),
        ("[limits]\ndays = []", "days is a list of mon, tue"),
        ("[limits]\nrounds_a_day = nan", "whole number"),
        ("[limits\n", "is no TOML file"),
    ],
)
def test_a_file_that_is_no_policy_is_told_with_key_and_what_is_allowed(tmp_path, text, said):
    with pytest.raises(PolicyError, match=said) as caught:
        Policy.load(written(tmp_path, text))
    assert str(tmp_path / "policy.toml") in str(caught.value)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path):
    with pytest.raises(PolicyError, match="cannot be read: No such file"):
        Policy.load(tmp_path / "none.toml")
    (tmp_path / "policy.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="is no TOML file"):
        Policy.load(tmp_path / "policy.toml")


def test_a_policy_in_python_is_checked_too():
    with pytest.raises(SettingError, match="minimum_cohort is a whole number"):
        Policy(minimum_cohort=-1)
    assert Policy(["a"], days=["mon"]) == Policy(("a",), days=("mon",))


def test_a_changed_file_holds_from_the_next_reading_on_and_a_broken_one_refuses(tmp_path):
    path = written(tmp_path, "[plans]\nallow = 'any'")
    file = PolicyFile(path)
    first = file.policy()
    assert first.allow == "any" and file.policy() is first
    path.write_text("[plans]\nallow = ['x']")
    os.utime(path, ns=(1, 1))
    assert file.policy().allow == ("x",)
    path.write_text("[plans]\nallow = 3")
    for _ in range(2):
        with pytest.raises(PolicyError, match="allow"):
            file.policy()
    path.unlink()
    with pytest.raises(PolicyError, match="cannot be read"):
        file.policy()


@pytest.mark.parametrize(
    ("allow", "allowed"),
    [
        ("any", True),
        ([], False),
        (["heart-*"], True),
        (["heart"], False),
        (["HEART-*"], False),
        ([f"sha256:{FREE.digest()}"], True),
        ([f"sha256:{CLIPPED.digest()}"], False),
        (["lung-*", f"sha256:{FREE.digest()}"], True),
    ],
)
def test_plans_are_allowed_by_digest_or_by_the_name_of_the_run(allow, allowed):
    assert (reasons(Policy(allow)) == "") == allowed


def test_a_run_that_is_named_like_an_allowed_digest_is_not_allowed_by_it():
    policy = Policy([f"sha256:{CLIPPED.digest()}"])
    assert "allow has neither" in reasons(policy, FREE, info(FREE, name=f"sha256:{CLIPPED.digest()}"))


def test_a_plan_is_judged_by_what_it_is_and_not_by_the_digest_that_is_told():
    told = info(FREE, digest=CLIPPED.digest())
    assert "not the one that the run's digest is of" in reasons(Policy("any"), FREE, told)
    assert "allow has neither" in reasons(Policy([f"sha256:{CLIPPED.digest()}"]), FREE, told)


@pytest.mark.parametrize(
    ("settings", "plan", "said"),
    [
        ({"minimum_cohort": 4}, FREE, "minimum_cohort is 4, and rounds of this run may close with 3"),
        ({"minimum_cohort": 3}, FREE, ""),
        ({"clip_required": True}, FREE, "one site can move this plan's sum without limit"),
        ({"clip_required": True}, CLIPPED, ""),
        ({"secure_sum": True}, CLIPPED, r"the server sees each contribution by itself \(PlainSum\(\)\)"),
        ({"secure_sum": True}, MASKED, ""),
        ({"minimum_cohort": 3, "minimum_threshold": 1.0}, MASKED, ""),
        ({"minimum_cohort": 4}, MASKED, "minimum_cohort is 4, and rounds of this run may close with 3"),
        ({"minimum_noise_multiplier": 0.1}, CLIPPED, "minimum_noise_multiplier: no noise is added before"),
        (
            {"minimum_noise_multiplier": 2.1},
            NOISED,
            "is 2.1, and the noise of this plan has 2",
        ),
        ({"minimum_noise_multiplier": 2.0}, NOISED, ""),
        ({"maximum_epsilon": 1e9}, CLIPPED, "maximum_epsilon: no noise is added before"),
        ({"maximum_epsilon": NOISED_SPENDS * 0.999}, NOISED, "at delta 1e-06, and this plan gives away"),
        ({"maximum_epsilon": NOISED_SPENDS * 1.001}, NOISED, ""),
        ({"maximum_epsilon": NOISED_SPENDS * 1.001, "epsilon_delta": 1e-7}, NOISED, "at delta 1e-07, and this plan"),
        ({"maximum_epsilon": 3.9}, LOCAL, "this plan gives away 4 of"),
        ({"maximum_epsilon": 4.1}, LOCAL, ""),
        ({"minimum_noise_multiplier": 1.0}, LOCAL, "here a site adds its own: ask for maximum_epsilon"),
        ({"rounds_a_day": 5}, FREE, "rounds_a_day is 5, and so many were done today"),
        ({"rounds_a_day": 6}, FREE, ""),
        ({"runs": 2}, FREE, "runs is 2, and this would be another one"),
        ({"runs": 3}, FREE, ""),
        ({"hours": "20:00-06:00"}, FREE, "tasks may begin 20:00-06:00 on any day, and it is 12:00 on wed"),
        ({"hours": "12:00-12:01"}, FREE, ""),
        ({"days": ["tue"]}, FREE, "at any hour on tue, and it is 12:00 on wed"),
        ({"maximum_upload_bytes": 55}, FREE, "maximum_upload_bytes is 55, and a turn of this plan sends up to 56"),
        ({"maximum_upload_bytes": 56}, FREE, ""),
        ({"maximum_upload_bytes_a_day": 355}, FREE, "355, 300 were sent today, and a turn of this plan sends up to 56"),
        ({"maximum_upload_bytes_a_day": 356}, FREE, ""),
        ({"require_study_file": True}, FREE, "came over the network"),
    ],
)
def test_each_key_refuses_what_it_says_and_nothing_else(settings, plan, said):
    past = Past(NOON, rounds_today=5, bytes_today=300, runs=frozenset({"r8", "r9"}), sites=frozenset("abc"))
    found = reasons(Policy("any", **settings), plan, past=past)
    assert (found == "") == (said == "")
    assert re.search(said, found)


@pytest.mark.parametrize(
    ("sites", "settings", "said"),
    [
        (
            "",
            {},
            "this site knows no other site's key, so the server could play the others: collect",
        ),
        ("ab", {}, "a secure sum of at least 3 sites is asked for, and the roster of this site has 2"),
        ("abc", {}, ""),
        (
            "abc",
            {"minimum_cohort": 4},
            "a secure sum of at least 4 sites is asked for, and the roster",
        ),
        ("abcd", {"minimum_cohort": 4}, ""),
    ],
)
def test_a_secure_sum_needs_the_keys_of_as_many_sites_as_it_hides_among(sites, settings, said):
    found = reasons(
        Policy("any", **settings), MASKED, info(MASKED, minimum_cohort=4), Past(NOON, sites=frozenset(sites))
    )
    assert (found == "") == (said == "")
    assert said in found


def test_the_threshold_of_a_secure_sum_is_a_promise_of_its_sites_and_not_only_of_the_server():
    plan = shoal.Plan(
        shoal.FedAvg(
            shoal.models.logistic(13),
            aggregation=shoal.Clip(1.0) >> shoal.Quantize(1e-3) >> shoal.SecureSum(5) >> shoal.Mean(),
        ),
        rounds=3,
    )
    past = Past(NOON, sites=frozenset("abcde"))
    assert reasons(Policy("any", minimum_cohort=5), plan, info(plan, minimum_cohort=1), past) == ""


def test_a_plan_of_a_study_file_satisfies_the_key_that_wants_one():
    assert reasons(Policy("any", require_study_file=True), past=Past(NOON, study_file=True)) == ""


def test_a_known_run_goes_on_when_no_other_may_begin():
    assert reasons(Policy("any", runs=1), past=Past(NOON, runs=frozenset({"r1"}))) == ""


def test_every_reason_is_given_at_once():
    policy = Policy([], minimum_cohort=9, clip_required=True, hours="01:00-02:00", maximum_upload_bytes=1)
    said = judge(policy, FREE, info(), Past(NOON))
    assert isinstance(said, Denied) and len(said.reasons) == 5
    assert str(said) == "; ".join(said.reasons)


def test_what_is_allowed_comes_with_its_limits():
    policy = Policy("any", maximum_seconds=60, maximum_upload_bytes=1000, maximum_upload_bytes_a_day=1200)
    assert judge(policy, FREE, info(), Past(NOON)) == Allowed(60.0, 1000)
    assert judge(policy, FREE, info(), Past(NOON, bytes_today=900)) == Allowed(60.0, 300)
    assert judge(Policy("any"), FREE, info(), Past(NOON)) == Allowed(None, None)


def test_what_cannot_be_judged_is_refused():
    class Odd:
        def __getattr__(self, name):
            raise RuntimeError("a value of somebody's data")

    assert judge(Policy("any"), Odd(), info(), Past(NOON)) == Denied(("the plan could not be judged: RuntimeError",))


MINUTES = st.integers(0, 24 * 60 - 1)


@given(
    begin=MINUTES, length=st.integers(1, 24 * 60 - 1), at=st.integers(0, 14 * 24 * 60), days=st.sets(st.integers(0, 6))
)
def test_a_window_is_open_for_its_length_from_its_opening_on_each_of_its_days(begin, length, at, days):
    monday = datetime(2026, 11, 23)
    end = (begin + length) % (24 * 60)
    names = [day for place, day in enumerate(("mon", "tue", "wed", "thu", "fri", "sat", "sun")) if place in days]
    policy = Policy("any", hours=f"{begin // 60:02}:{begin % 60:02}-{end // 60:02}:{end % 60:02}", days=names or None)
    openings = [day * 1440 + begin for day in range(-1, 15) if not days or day % 7 in days]
    assert policy.open_at(monday + timedelta(minutes=at)) == any(o <= at < o + length for o in openings)


def test_a_window_may_end_at_midnight():
    policy = Policy("any", hours="22:00-24:00")
    assert [policy.open_at(NOON.replace(hour=hour)) for hour in (21, 22, 23, 0)] == [False, True, True, False]


STRICTER = {
    "allow": [("any", ("heart-*", f"sha256:{CLIPPED.digest()}")), (("heart-*", "lung-*"), ("lung-*",)), ("any", ())],
    "require_study_file": [(False, True)],
    "minimum_cohort": [(0, 3), (3, 4)],
    "clip_required": [(False, True)],
    "secure_sum": [(False, True)],
    "minimum_threshold": [(None, 0.75), (0.75, 1.0)],
    "minimum_noise_multiplier": [(None, 0.1), (0.1, 2.0)],
    "maximum_epsilon": [(None, 8.0), (8.0, 1.0)],
    "epsilon_delta": [(1e-4, 1e-6), (1e-6, 1e-9)],
    "rounds_a_day": [(None, 6), (6, 0)],
    "runs": [(None, 2), (2, 0)],
    "hours": [
        (None, "08:00-20:00"),
        ("08:00-20:00", "09:00-19:59"),
        ("22:00-13:00", "23:00-12:30"),
        (None, "20:00-06:00"),
    ],
    "days": [(None, ("wed", "thu")), (("wed", "thu"), ("thu",))],
    "maximum_upload_bytes": [(None, 100), (100, 10)],
    "maximum_upload_bytes_a_day": [(None, 400), (400, 10)],
    "maximum_seconds": [(None, 60.0), (60.0, 1.0)],
}
"""For each key pairs of a laxer and a stricter value."""


def test_the_law_of_strictness_has_every_key():
    assert set(STRICTER) == {key for keys in SECTIONS.values() for key in keys}


@st.composite
def policies(draw):
    """A laxer and a stricter policy."""
    pairs = {key: draw(st.sampled_from(values)) for key, values in STRICTER.items()}
    lax = {key: pair[0] for key, pair in pairs.items()}
    stricter = draw(st.sets(st.sampled_from(sorted(pairs)), max_size=3))
    given_up = draw(st.sets(st.sampled_from(sorted(pairs)), min_size=9))
    base = {"allow": "any"} | {key: value for key, value in lax.items() if key not in given_up or key in stricter}
    laxer = Policy(**base)
    return laxer, replace(laxer, **{key: pairs[key][1] for key in stricter})


@given(
    pair=policies(),
    plan=st.sampled_from(PLANS),
    name=st.sampled_from(["heart-2026", "lung-1"]),
    minimum=st.integers(0, 5),
    past=st.builds(
        Past,
        st.datetimes(NOON - timedelta(days=2), NOON + timedelta(days=2)),
        st.integers(0, 8),
        st.integers(0, 500),
        st.frozensets(st.sampled_from(["r1", "r2", "r3"])),
        study_file=st.booleans(),
        sites=st.sampled_from([frozenset(), frozenset("abc"), frozenset("abcde")]),
    ),
)
def test_a_stricter_policy_never_allows_what_a_laxer_one_denies(pair, plan, name, minimum, past):
    lax, strict = (judge(policy, plan, info(plan, name, minimum_cohort=minimum), past) for policy in pair)
    if isinstance(strict, Allowed):
        assert isinstance(lax, Allowed)
        for limit in ("most_seconds", "most_bytes"):
            mine, laxer = getattr(strict, limit), getattr(lax, limit)
            assert laxer is None or (mine is not None and mine <= laxer)
        assert strict.demand.clients >= lax.demand.clients and strict.demand.threshold >= lax.demand.threshold
    else:
        assert isinstance(lax, Allowed) or len(strict.reasons) >= len(lax.reasons)
