"""What happens to a run, and what the run wants done about it.

Events come from outside with the time at which they happened, in seconds of any clock that never goes back. Effects
go out in the order in which they must be made durable; whoever carries them out decides how.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["waiting", "open", "pausing", "cancelling", "paused", "completed", "failed", "cancelled"]
"""Of a run. "waiting": for clients; "open": a round is; "pausing": a round is open, and no other follows it;
"cancelling": a round is being closed, and the run is cancelled after it. The last three are final, but that a failed
run can be resumed."""

TaskStatus = Literal["issued", "counted", "late", "rejected", "declined", "expired", "cancelled"]
"""Of a task. "issued": given out, and not reported; all others are final. "late": its round closed without it;
"expired": its deadline came; "cancelled": its run or its round ended for everybody."""


@dataclass(frozen=True)
class Seen:
    """A client is there and would take a task of this run."""

    client: str


@dataclass(frozen=True)
class Gone:
    """A client is not there any more, is busy, or its policy refuses this run. A task that it has stays issued."""

    client: str


@dataclass(frozen=True)
class Reported:
    """A task's contribution is whole, checked, and about to be durable."""

    task: str


@dataclass(frozen=True)
class Refused:
    """A task's contribution was not what was asked for."""

    task: str
    reason: str


@dataclass(frozen=True)
class Dropped:
    """A client declined a task, or lost it."""

    task: str
    reason: str


@dataclass(frozen=True)
class Closed:
    """The round that was closing is closed: the next model is durable."""

    round: int


@dataclass(frozen=True)
class Broke:
    """The round that was closing could not be closed: the run fails with a reason."""

    reason: str


@dataclass(frozen=True)
class Sealed:
    """Those who take part in an attempt at a round are fixed: nobody is asked in the place of another any more."""

    round: int
    attempt: int


@dataclass(frozen=True)
class Undone:
    """An attempt at a round cannot come to a sum, though enough contributions may: it counts for nothing, and the round
    is tried again."""

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True)
class Pause:
    """A person wants no new round. An open one goes on to its end."""

    reason: str


@dataclass(frozen=True)
class Resume:
    """A person wants it to go on: after a pause, or after a failure from the last closed round."""


@dataclass(frozen=True)
class Cancel:
    """A person wants it to end now. Open tasks are cancelled, and the open round counts for nothing; but one that is
    being closed is closed, for its model may be durable already."""


Event = Seen | Gone | Reported | Refused | Dropped | Closed | Broke | Sealed | Undone | Tick | Pause | Resume | Cancel


@dataclass(frozen=True)
class Opened:
    """A round was opened (tried for the `attempt`-th time, from 0) for a cohort of a size, by a deadline.

    In asynchronous runs a round is the making of a model: of `cohort` contributions, and without a deadline.
    """

    round: int
    attempt: int
    cohort: int
    deadline: float


@dataclass(frozen=True)
class Issued:
    """A client has a task: its name, its round, and its place among the tasks of that round."""

    task: str
    client: str
    round: int
    attempt: int
    position: int


@dataclass(frozen=True)
class Settled:
    """A task has a final status; a counted one the weight of its staleness, which is 1 in synchronous rounds."""

    task: str
    status: TaskStatus
    reason: str = ""
    scale: float = 1.0


@dataclass(frozen=True)
class Close:
    """The contributions of these tasks, and no others, are the round's sum: make the next model of it.

    Names are in the order in which they were issued; in asynchronous runs, in which others may be counted while this
    is done, in the order in which they were counted. Answered by `Closed` or `Broke`.
    """

    round: int
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Abandoned:
    """A round ended without its sum: what was counted in it counts for nothing.

    In asynchronous runs that is every counted task that is in no closed round.
    """

    round: int
    attempt: int
    reason: str


@dataclass(frozen=True)
class Became:
    """The run's status changed, and why."""

    status: Status
    reason: str = ""


Effect = Opened | Issued | Settled | Close | Abandoned | Became
