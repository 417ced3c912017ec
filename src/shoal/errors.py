"""Every error that Shoal raises on purpose.

    ShoalError
    ├── PlanError               a plan that cannot be; raised before anything runs
    │   ├── OrderError          the parts of an aggregation do not fit in the order given
    │   ├── SettingError        a number or a name outside what is allowed
    │   ├── UnsupportedError    a rule that this model or this runtime cannot run
    │   ├── BudgetError         more is to be released of clients than their federation's budget leaves
    │   └── StudyFileError      a study file that cannot be used
    ├── DataError               data that is not as declared
    │   └── PackageError        a package of data that cannot be had, or is not the one that was pinned
    ├── RunError                something that happened while rounds ran
    │   ├── RejectedError       a contribution was rejected and the run was asked to stop at that
    │   ├── DivergedError       the model is not finite any more
    │   ├── TooFewClientsError  a round waited for clients, and too few came
    │   ├── CheckpointError     a checkpoint that cannot be read, or belongs to another plan
    │   ├── CallbackError       a callback that failed, or could not write its file
    │   ├── WireError           a message or a blob that is not what was declared
    │   ├── StoreError          a store that cannot be used, or could not make something durable
    │   │   └── ConflictError   something else was there first; nothing of the transaction was done
    │   ├── ServerError         the server refused, or could not be reached
    │   │   └── SupersededError another agent with this client's key is listened to
    │   ├── SecureSumError      a secure sum that was stopped, and because of whom where that is known
    │   ├── StoppedError        the agent was asked to stop before this was done
    │   └── PolicyError         what a site's policy does not allow
    └── MissingExtraError       an optional package is not installed

A message says what was wanted, what came, and what to do. It never holds a value from anybody's data.
"""

from __future__ import annotations


class ShoalError(Exception):
    """Base of every error that Shoal raises on purpose."""


class PlanError(ShoalError):
    """A plan that cannot be. Raised before anything runs."""


class OrderError(PlanError, TypeError):
    """The parts of an aggregation do not fit in the order given."""


class SettingError(PlanError, ValueError):
    """A number or a name outside what is allowed."""


class UnsupportedError(PlanError):
    """A rule that this model or this runtime cannot run."""


class BudgetError(PlanError):
    """More is to be released of clients than the budget of their federation leaves."""


class StudyFileError(PlanError):
    """A study file that cannot be used."""


class DataError(ShoalError, ValueError):
    """Data that is not as declared."""


class PackageError(DataError):
    """A package of data that cannot be had, or that is not the one that was pinned."""


class RunError(ShoalError):
    """Something that happened while rounds ran."""


class RejectedError(RunError):
    """A contribution was rejected and the run was asked to stop at that."""


class DivergedError(RunError):
    """The model is not finite any more."""


class TooFewClientsError(RunError):
    """A round waited for clients, and too few came."""


class CheckpointError(RunError):
    """A checkpoint that cannot be read, or that belongs to another plan."""


class CallbackError(RunError):
    """A callback that failed, or that could not write its file."""


class WireError(RunError, ValueError):
    """A message or a blob that is not what was declared."""


class StoreError(RunError):
    """A store that cannot be used, or that could not make something durable."""


class ConflictError(StoreError):
    """Something else was there first; nothing of the transaction was done."""


class ServerError(RunError):
    """The server refused, or could not be reached. `code` is for programs, such as "session-unknown"."""

    def __init__(self, message: str, *, code: str = "unreachable", retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.code, self.retry_after_s = code, retry_after_s


class SupersededError(ServerError):
    """Another agent with this client's key said hello later, and only that one is listened to."""


class SecureSumError(RunError):
    """A secure sum that was stopped before anything was revealed. `culprit` is the client whose message was wrong."""

    def __init__(self, message: str, *, culprit: str | None = None) -> None:
        super().__init__(message)
        self.culprit = culprit


class StoppedError(RunError):
    """The agent was asked to stop before this was done."""


class PolicyError(RunError):
    """What a site's policy does not allow."""


class MissingExtraError(ShoalError, ImportError):
    """An optional package is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"this needs {package}, which is not installed: run  pip install 'shoal[{extra}]'")
