"""Every message between a client and a server, as a typed value.

Messages travel as msgpack (`application/msgpack`), or as JSON for people with curl. Decoding checks types, lengths
and ranges before anything else sees a message; fields that are not known are ignored, so that a newer peer may say
more. Numbers of seconds are durations: nobody compares two machines' clocks.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

VERSION = 1
"""The version of the protocol. A server serves this one and, later, those before it."""

VERSION_HEADER, SESSION_HEADER, COUNTER_HEADER, DIGEST_HEADER, MAC_HEADER = (
    "shoal-version", "shoal-session", "shoal-counter", "shoal-digest", "shoal-mac",
)  # fmt: skip
"""On every request of a client: the protocol's version, the session, a counter that rises within it, SHA-256 of the
body in hexadecimal, and HMAC-SHA256 (hexadecimal) over `shoal.wire.signing.to_sign`."""

INLINE_BYTES = 256 * 1024
"""Blobs up to this size ride inside a message."""

PART_BYTES = 8 * 1024 * 1024
"""How large the parts of a blob are, the last one excepted."""

MESSAGE_BYTES = 4 * 1024 * 1024
"""The largest message. Blobs of tensors are not messages."""

PLAN_BYTES = 2 * 1024 * 1024
"""The longest description of a plan."""

Name = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[\w][\w .@:+-]*$")]
Text = Annotated[str, Meta(max_length=2000)]
Digest = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
"""SHA-256 in hexadecimal."""
Identifier = Annotated[str, Meta(pattern="^[0-9a-z-]{1,64}$")]
PublicKey = Annotated[bytes, Meta(min_length=32, max_length=32)]
Signature = Annotated[bytes, Meta(min_length=64, max_length=64)]
Seconds = Annotated[float, Meta(ge=0, le=1e7)]
Count = Annotated[int, Meta(ge=0, le=2**48)]


class Message(Struct, frozen=True, kw_only=True):
    """Base of all messages."""


class Manifest(Message, frozen=True, kw_only=True):
    """A blob before its bytes: how long it is, and SHA-256 of each of its parts.

    The blob's id is `shoal.wire.blobs.blob_id(manifest)`. `coding` is "zstd" for a blob whose parts together are one
    zstd frame of `raw_bytes` bytes, else "" (then `raw_bytes` equals `size_bytes`).
    """

    size_bytes: Count
    part_bytes: Annotated[int, Meta(ge=1, le=64 * 1024 * 1024)]
    parts: Annotated[tuple[Annotated[bytes, Meta(min_length=32, max_length=32)], ...], Meta(max_length=100_000)]
    coding: Literal["", "zstd"] = ""
    raw_bytes: Count


class Problem(Message, frozen=True, kw_only=True):
    """Why a request was not done: a code for programs, a sentence for people, and when to come again."""

    code: Identifier
    message: Text
    retry_after_s: Seconds | None = None


class ServerInfo(Message, frozen=True, kw_only=True):
    """`GET /v1/server`: who this is, before anybody says who they are."""

    federation: Name
    versions: tuple[int, ...]
    boot: Identifier
    """Another one after each start of the server: sessions of before are gone."""
    time: float
    """Seconds since 1970 by the server's clock, so that a client can say how far its own is off."""
    features: tuple[str, ...] = ()


class Enroll(Message, frozen=True, kw_only=True):
    """`POST /v1/enroll`: a token, once, for a key that was made here. Signed with that key."""

    token: Annotated[str, Meta(max_length=200)]
    name: Name
    public_key: PublicKey
    signature: Signature


class Enrolled(Message, frozen=True, kw_only=True):
    """The answer: under what name and id the key is known from now on."""

    client: Identifier
    name: Name
    federation: Name


class Hello(Message, frozen=True, kw_only=True):
    """`POST /v1/session`: signed by the client's key over federation, boot, client, incarnation and nonce."""

    client: Identifier
    boot: Identifier
    incarnation: Identifier
    """Random, once for each start of the agent: the newest one has the identity."""
    nonce: Annotated[bytes, Meta(min_length=16, max_length=16)]
    signature: Signature
    software: Annotated[str, Meta(max_length=100)] = ""


class Session(Message, frozen=True, kw_only=True):
    """The answer: a session, and the key for the MAC of each request in it."""

    session: Identifier
    mac_key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    lasts_s: Seconds


class Holding(Message, frozen=True, kw_only=True):
    """A task that a client has taken and not reported yet, and how far it is."""

    task: Identifier
    done: Count = 0


class CheckIn(Message, frozen=True, kw_only=True):
    """`POST /v1/checkin`: the only heartbeat. What the client works on, and for how long it would wait for work."""

    holding: Annotated[tuple[Holding, ...], Meta(max_length=100)] = ()
    wait_s: Seconds = 0.0
    busy: bool = False
    """True for a client that takes no new task now."""
    refuses: Annotated[tuple[Identifier, ...], Meta(max_length=1000)] = ()
    """Runs that the client's policy refuses."""


class RunInfo(Message, frozen=True, kw_only=True):
    """What a client must know of a run before it decides. `plan` is the plan's description as JSON."""

    run: Identifier
    name: Name
    plan: Annotated[bytes, Meta(max_length=PLAN_BYTES)]
    plan_digest: Digest
    minimum_cohort: Count
    """No round of this run is closed with fewer clients."""


class Task(Message, frozen=True, kw_only=True):
    """One client's turn in one round."""

    task: Identifier
    run: Identifier
    plan_digest: Digest
    round: Count
    """Counted from 0."""
    key: tuple[Annotated[int, Meta(ge=0, lt=2**32)], Annotated[int, Meta(ge=0, lt=2**32)]]
    """For shuffles and rounding, as in a simulation with the same seed. No secret is drawn from it."""
    model: Manifest
    inline: Annotated[bytes, Meta(max_length=INLINE_BYTES)] | None = None
    """The model's blob, if it is small."""
    state_of: Identifier | None = None
    """The task after which the client's state of this run is the current one; None: it enters anew."""
    seconds_left: Seconds
    most_bytes: Count
    """The largest upload that will be taken."""
    secure: Annotated[bytes, Meta(max_length=2000)] | None = None
    """For a plan with a secure sum: the terms of this attempt's session (`shoal.secure.terms.Terms` in msgpack)."""


class Orders(Message, frozen=True, kw_only=True):
    """The answer to a check-in."""

    wait_s: Seconds
    """When to come again."""
    tasks: tuple[Task, ...] = ()
    runs: tuple[RunInfo, ...] = ()
    """Runs that the client was not told of in this session."""
    cancelled: tuple[Identifier, ...] = ()
    """Tasks that it holds and may drop."""
    draining: bool = False


class Upload(Message, frozen=True, kw_only=True):
    """`POST /v1/tasks/{task}/upload`: what will come. The answer is `Missing`, or a `Verdict` if nothing is wanted."""

    manifest: Manifest


class Missing(Message, frozen=True, kw_only=True):
    """Which parts the server does not have yet."""

    parts: tuple[int, ...]


class Result(Message, frozen=True, kw_only=True):
    """`POST /v1/tasks/{task}/report`: the end of a task: its payload as a blob, uploaded or inline."""

    manifest: Manifest
    inline: Annotated[bytes, Meta(max_length=INLINE_BYTES)] | None = None
    train_s: Seconds = 0.0
    secure: Annotated[bytes, Meta(max_length=2000)] | None = None
    """In a secure sum: the message that says what body the blob is (`shoal.secure.messages.Masked`)."""


class SecureStep(Message, frozen=True, kw_only=True):
    """`POST /v1/tasks/{task}/secure`: a client's message of one stage of its round's secure sum.

    The answer is a `SecureNext` with what the client is sent after this stage. Until there is one, the request is held
    for up to `wait_s`, and then answered without; the client says the same again, as often as it likes. For "mask" the
    message is that of its `Result`. After "answer" there is nothing more.
    """

    stage: Literal["advertise", "share", "mask", "confirm", "answer"]
    message: Annotated[bytes, Meta(max_length=MESSAGE_BYTES - 1000)]
    wait_s: Seconds = 0.0


class SecureNext(Message, frozen=True, kw_only=True):
    """What follows a stage of a secure sum; `message` is None while others are waited for."""

    message: Annotated[bytes, Meta(max_length=MESSAGE_BYTES - 1000)] | None = None


class Declined(Message, frozen=True, kw_only=True):
    """`POST /v1/tasks/{task}/decline`: the client does not do this task."""

    reason: Literal["policy", "data", "busy", "error", "interrupted", "cancelled"]
    message: Text = ""


class Verdict(Message, frozen=True, kw_only=True):
    """What became of a task's report: the same answer however often it is asked.

    "counted": it is durable, and in its round's sum if that round closes; "late": the round closed without it;
    "rejected": it was not what was asked for, `message` says why; "cancelled": the run ended.
    """

    verdict: Literal["counted", "late", "rejected", "cancelled"]
    message: Text = ""
