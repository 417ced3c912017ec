"""One message of every kind, for tests that hold for all of them."""

from __future__ import annotations

from shoal.wire import messages as m
from shoal.wire.blobs import manifest_of

MANIFEST = manifest_of(b"some bytes", part_bytes=4)
TASK = m.Task(
    task="t-1", run="r-1", plan_digest="0" * 64, round=3, key=(1, 2**32 - 1), model=MANIFEST, inline=b"some bytes",
    state_of="t-0", seconds_left=30.5, most_bytes=1000, secure=b"terms",
)  # fmt: skip
RUN = m.RunInfo(run="r-1", name="a study", plan=b"{}", plan_digest="f" * 64, minimum_cohort=2)

EVERY: tuple[m.Message, ...] = (
    MANIFEST,
    m.Problem(code="too-many", message="come later", retry_after_s=2.0),
    m.ServerInfo(federation="hospitals", versions=(1,), boot="b-1", time=1.5e9, features=("zstd",)),
    m.Enroll(token="secret", name="north", public_key=b"k" * 32, signature=b"s" * 64),
    m.Enrolled(client="c-1", name="north", federation="hospitals"),
    m.Hello(client="c-1", boot="b-1", incarnation="i-1", nonce=b"n" * 16, signature=b"s" * 64, software="shoal 1"),
    m.Session(session="s-1", mac_key=b"m" * 32, lasts_s=3600.0),
    m.Holding(task="t-1", done=7),
    m.CheckIn(holding=(m.Holding(task="t-1"),), wait_s=25.0, busy=True, refuses=("r-2",)),
    RUN,
    TASK,
    m.Orders(wait_s=5.0, tasks=(TASK,), runs=(RUN,), cancelled=("t-9",), draining=True),
    m.Upload(manifest=MANIFEST),
    m.Missing(parts=(0, 2)),
    m.Result(manifest=MANIFEST, inline=b"some bytes", train_s=1.25, secure=b"masked"),
    m.SecureStep(stage="advertise", message=b"two keys", wait_s=20.0),
    m.SecureNext(message=b"everybody's keys"),
    m.Declined(reason="policy", message="not at night"),
    m.Verdict(verdict="late", message="the round closed"),
)
