"""What the web application asks of whoever runs the rounds: the seam between HTTP and the federation."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from shoal.plan import Plan
from shoal.rounds.rules import Rules
from shoal.server.views import ClientView, LedgerView, RunView
from shoal.store.blob_store import BlobStore
from shoal.store.incoming import Incoming
from shoal.store.store import Store
from shoal.wire.messages import (
    CheckIn,
    Declined,
    Enroll,
    Enrolled,
    Missing,
    Orders,
    Result,
    SecureNext,
    SecureStep,
    Upload,
    Verdict,
)

Command = Literal["pause", "resume", "cancel"]


@dataclass(frozen=True)
class Known:
    """A client that showed who it is: its id, and the name that people gave it."""

    id: str
    name: str


class Coordination(Protocol):
    """A federation, as the web application sees it. Everything is called on one event loop.

    Refusals are ServerErrors whose `code` is one of `shoal.server.answers.STATUS`.
    """

    federation: str
    boot: str
    store: Store
    blobs: BlobStore

    async def enroll(self, message: Enroll) -> Enrolled:
        """The client that a token was spent for. The signature has been checked."""
        ...

    def known(self, client: str) -> Known | None:
        """The client with an id; None if nobody has it, or it was revoked. Answers from memory."""
        ...

    def public_key(self, client: str) -> bytes | None:
        """The key of the client with an id; None as in `known`."""
        ...

    async def check_in(self, client: Known, message: CheckIn, *, told: set[str]) -> Orders:
        """What the client is to do. `told` has the runs that its session was told of, and grows by those it is now."""
        ...

    async def offer(self, client: Known, task: str, message: Upload) -> Missing | Verdict:
        """Which parts of a result are wanted."""
        ...

    def incoming(self, client: Known, task: str) -> Incoming:
        """Where the parts of an offered result go."""
        ...

    async def part_done(self, client: Known, task: str, n: int) -> None:
        """A part is whole, and its hash is right."""
        ...

    async def report(self, client: Known, task: str, message: Result) -> Verdict:
        """What becomes of a result; answered when that is durable."""
        ...

    async def decline(self, client: Known, task: str, message: Declined) -> Verdict:
        """What becomes of a task that the client does not do."""
        ...

    async def secure(self, client: Known, task: str, message: SecureStep) -> SecureNext:
        """What follows a client's message of its round's secure sum; without a message if that was waited for in
        vain."""
        ...

    def may_read(self, client: Known, blob: str) -> bool:
        """Whether a blob is named by one of the client's tasks or runs."""
        ...

    def gone(self, client: Known) -> None:
        """The client's session ended, or a newer agent has superseded it: whoever waits for it is answered."""
        ...

    def drain(self) -> None:
        """No new task from now on, and whoever waits for one is answered. Reports are taken as before."""
        ...

    async def stop(self) -> None:
        """Ends what is under way, after the last request: open folds are finished, everything durable stays."""
        ...

    async def submit(
        self, plan: Plan | bytes, *, name: str, rules: Rules | None = None, seed: int | None = None
    ) -> str:
        """The id of a new run."""
        ...

    async def command(self, run: str, what: Command, actor: str = "operator") -> RunView:
        """The run, after a person said what is to become of it."""
        ...

    def runs(self) -> list[RunView]:
        """All runs, the newest first, without their histories."""
        ...

    def run(self, run: str) -> RunView:
        """A run by id or name, with its history."""
        ...

    def ledger(self) -> LedgerView:
        """What the runs have released, and the budget of all of them together."""
        ...

    async def model(self, run: str) -> Path:
        """A safetensors file with the run's model after its last closed round."""
        ...

    def clients(self) -> list[ClientView]:
        """All clients, by name."""
        ...

    async def token(self, *, label: str, uses: int, lasts_s: float) -> str:
        """A new token for enrolment. It is not kept: whoever asked has the only copy."""
        ...

    async def revoke(self, client: str) -> None:
        """The client with an id or a name is not known any more from now on."""
        ...
