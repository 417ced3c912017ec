"""The listeners of one run: who is told what, and when; their mistakes named."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from shoal.algorithms import Run
from shoal.errors import CallbackError, SettingError, ShoalError
from shoal.settings import whole
from shoal.simulation.callbacks.protocol import Answer, Beginning, Callback, Function, Listener, Row


def checked(callbacks: Any) -> tuple[Callback | Function, ...]:
    """The callbacks; SettingError if one of them is none."""
    if not isinstance(callbacks, list | tuple):
        raise SettingError(f"callbacks is a list, such as [CsvLog('runs.csv')], not a {type(callbacks).__name__}")
    given = cast("Sequence[Any]", callbacks)
    for callback in given:
        if isinstance(callback, type) or not (hasattr(callback, "begin") or callable(callback)):
            raise SettingError(
                "a callback is a value such as CsvLog('runs.csv'), or a function of new rows and the run, not "
                f"{callback!r}"
            )
    return tuple(given)


class Audience:
    """Everyone who listens to a run."""

    def __init__(self, members: Sequence[_Member], rounds: int) -> None:
        self._members, self._rounds = members, rounds

    def next_stop(self, round: int) -> int:
        """The next round after which somebody must hear of the run."""
        stops = [round + every - round % every for m in self._members if (every := m.listener.every)]
        return min([self._rounds, *stops])

    def tell(self, rows: Sequence[Row], run: Run[Any]) -> str | None:
        """Tells those whose turn it is; why the run stops, if one of them says so before the last round.

        The round at which it stops is the last, and then everybody is told.
        """
        round = int(run.round)
        reasons = [member.hear(rows, run) for member in self._members if member.waits_for(round, self._rounds)]
        why = next((reason for reason in reasons if reason), None)
        if why is None or round == self._rounds:
            return None
        for member in self._members:
            if member.told < round:
                member.hear(rows, run)
        return why


@contextmanager
def audience(
    callbacks: Sequence[Callback | Function], beginning: Beginning, rows: Sequence[Row]
) -> Generator[Audience]:
    """The listeners of a run; all are closed at its end, however it ends. `rows` is the history, and grows."""
    with ExitStack() as stack:
        members: list[_Member] = []
        for callback in callbacks:
            member = _begun(callback, beginning)
            stack.callback(member.close, rows)
            members.append(member)
        yield Audience(members, beginning.plan.rounds)


@dataclass
class _Member:
    """One listener, and how many rows it was told."""

    name: str
    listener: Listener
    told: int

    def waits_for(self, round: int, rounds: int) -> bool:
        """Whether it is told after this round."""
        every = self.listener.every
        return round > self.told and (every is None or round % every == 0 or round == rounds)

    def hear(self, rows: Sequence[Row], run: Run[Any]) -> str | None:
        news, self.told = [dict(row) for row in rows[self.told :]], len(rows)  # copies: a function may change them
        with _named(self.name, f"failed after round {self.told}"):
            return _reason(self.listener.after(news, run), f"{self.name} stopped the run after round {self.told}")

    def close(self, rows: Sequence[Row]) -> None:
        with _named(self.name, f"could not be closed after round {len(rows)}"):
            self.listener.close(rows[self.told :])


def _begun(callback: Callback | Function, beginning: Beginning) -> _Member:
    name = _name(callback)
    with _named(name, "could not begin"):
        listener = callback.begin(beginning) if hasattr(callback, "begin") else _Own(callback, beginning.every)  # type: ignore[union-attr]
    if listener.every is not None:
        whole(listener.every, f"{name} listens every 1 or more rounds, or every=None", least=1)
    done = len(beginning.rows)
    # The last time is repeated: the run may have ended before what it caused was done.
    told = done if listener.every is None else max(done - 1, 0) // listener.every * listener.every
    return _Member(name, listener, told)


@dataclass(frozen=True)
class _Own:
    """A function as a listener."""

    function: Function
    every: int

    def after(self, rows: Sequence[Row], run: Run[Any]) -> Answer:
        return self.function(rows, run)

    def close(self, rows: Sequence[Row]) -> None:
        pass


@contextmanager
def _named(name: str, when: str) -> Generator[None]:
    """Errors with the callback's name. Ours have it, or say what to do."""
    try:
        yield
    except ShoalError:
        raise
    except OSError as error:
        raise CallbackError(f"{name} {when}: {error.strerror or error}") from error
    except Exception as error:
        raise CallbackError(f"{name} {when}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _name(callback: Any) -> str:
    return getattr(callback, "__qualname__", None) or repr(callback)


def _reason(answer: Any, otherwise: str) -> str | None:
    """Why to stop, or None to go on."""
    if answer is None or isinstance(answer, str):
        return answer or None
    if isinstance(answer, bool | np.bool_):
        return otherwise if answer else None
    raise SettingError(f"a callback returns True or a sentence to stop, or None to go on, not {type(answer).__name__}")
