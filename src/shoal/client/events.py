"""What an agent tells while it works: small values, each of which prints as a sentence."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Connected:
    """A session was opened."""

    federation: str
    name: str

    def __str__(self) -> str:
        return f"connected to {self.federation} as {self.name}"


@dataclass(frozen=True)
class Away:
    """The server could not be reached, or asked to be left alone; the agent tries again."""

    why: str
    again_s: float

    def __str__(self) -> str:
        return f"{self.why}; trying again in {self.again_s:.1f} s"


@dataclass(frozen=True)
class Skewed:
    """This machine's clock and the server's differ."""

    seconds: float

    def __str__(self) -> str:
        way = "behind" if self.seconds > 0 else "ahead of"
        return f"this machine's clock is {abs(self.seconds):.0f} s {way} the server's; nothing depends on it"


@dataclass(frozen=True)
class Welcomed:
    """The policy allows a run."""

    run: str

    def __str__(self) -> str:
        return f"run {self.run}: allowed"


@dataclass(frozen=True)
class Refused:
    """This client takes no part in a run."""

    run: str
    reasons: tuple[str, ...]

    def __str__(self) -> str:
        return f"run {self.run}: refused, because {'; '.join(self.reasons)}"


@dataclass(frozen=True)
class Took:
    """A task was taken, or taken up again after a restart."""

    run: str
    round: int
    task: str

    def __str__(self) -> str:
        return f"run {self.run}, round {self.round + 1}: taken"


@dataclass(frozen=True)
class Trained:
    """A task's work is done and its result is on the disk. It counts for nobody if data or result were not finite."""

    run: str
    round: int
    task: str
    seconds: float
    upload_bytes: int
    counts: bool = True

    def __str__(self) -> str:
        note = "" if self.counts else "; NaN or infinity in the data or in what came of it: this client does not count"
        work = f"{self.seconds:.2f} s of work, {self.upload_bytes:,} bytes to send"
        return f"run {self.run}, round {self.round + 1}: {work}{note}"


@dataclass(frozen=True)
class Settled:
    """What became of a task: the server's verdict, or "declined" or "cancelled" with the reason."""

    run: str
    round: int
    task: str
    verdict: str
    message: str = ""

    def __str__(self) -> str:
        reason = f" ({self.message})" if self.message else ""
        return f"run {self.run}, round {self.round + 1}: {self.verdict}{reason}"


@dataclass(frozen=True)
class Opened:
    """A secure sum that this site's result is in was opened with the help of this site."""

    run: str
    round: int
    task: str
    clients: int

    def __str__(self) -> str:
        return f"run {self.run}, round {self.round + 1}: the sum of {self.clients} sites was opened"


@dataclass(frozen=True)
class Withheld:
    """This site gave no share to open a secure sum that its result is in."""

    run: str
    round: int
    task: str
    why: str

    def __str__(self) -> str:
        return f"run {self.run}, round {self.round + 1}: nothing was given to open the sum, because {self.why}"


@dataclass(frozen=True)
class Stopped:
    """The agent ends."""

    why: str

    def __str__(self) -> str:
        return f"stopped: {self.why}"


Event = Connected | Away | Skewed | Welcomed | Refused | Took | Trained | Settled | Opened | Withheld | Stopped
