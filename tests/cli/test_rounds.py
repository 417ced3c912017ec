"""The display of a run's rounds."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

import shoal
from shoal.cli.rounds import Watch
from shoal.errors import StoreError
from shoal.server.federation import Federation
from shoal.server.serving import Serving

PLAN = shoal.Plan(shoal.FedAvg(shoal.models.logistic(3)), rounds=2)


class Away:
    """A server whose store does not answer for a while."""

    def __init__(self, serving: Serving) -> None:
        self._serving, self.away = serving, False

    def call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        if self.away:
            coroutine.close()
            raise StoreError("the database restarts")
        return self._serving.call(coroutine)


def test_a_store_that_is_away_ends_nothing_and_the_end_of_a_run_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    federation = Federation.at(tmp_path, port=0)
    with federation.running() as serving:
        run = serving.call(federation.submit_once(PLAN, name="heart"))
        away: Any = Away(serving)
        watch = Watch(away, federation, run, quiet=False)
        with watch.shown():
            assert not watch.look()
            away.away = True
            assert not watch.look()
            away.away = False
            serving.call(federation.coordinator.command(run, "cancel"))
            assert watch.look()
    assert "heart is cancelled" in capsys.readouterr().err
