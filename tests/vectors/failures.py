"""Every way in which a secure sum fails: what is not as it should be, and who says so."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shoal.secure.bitmap import bitmap
from shoal.secure.messages import (
    Advertised,
    Advertisement,
    Answer,
    Confirmation,
    Confirmations,
    Inbox,
    Masked,
    Shares,
    Survivors,
    decode,
    encode,
)
from shoal.secure.terms import Demand

from ..secure.forgery import Forger, at, edit, lines
from ..secure.session import Clients, clients, digest
from .record import Case, Extra

THREE, FOUR = clients(3), clients(4)
OUTSIDER = clients(5)
LIMB = 2**31 - 1


def cases() -> list[Case]:
    """All of them, in the order of stages."""
    return [*_advertise(), *_share(), *_mask(), *_confirm(), *_answer(), *_too_few(), *_late()]


def _at(name: str, what: str, who: str, change: Any, group: Clients = FOUR, **more: Any) -> Case:
    return Case(name, group, line=at(what, who, change), **more)


def _forged(name: str, what: str, change: Any, who: str = "b", group: Clients = FOUR, **more: Any) -> Case:
    """A client's message that the client itself makes otherwise: `change` is given the forger and the message."""
    forger = Forger(group, who)
    return Case(name, group, line=lines(forger.sees(), at(what, who, lambda m: change(forger, m))), **more)


def _listed(change: Any) -> Any:
    """A change to the list of advertisements."""
    return edit(Advertised, lambda m: {"advertisements": tuple(change(list(m.advertisements)))})


def _with(one: Any, **fields: Any) -> Any:
    return decode(edit(type(one), lambda _: fields)(encode(one)), type(one))


def _advertise() -> list[Case]:
    fake = _with(decode(OUTSIDER.client("e").advertise(), Advertisement))
    return [
        _at("an advertisement is cut short", "advertisement", "b", lambda m: m[:-1]),
        _at("an advertisement is written in another way", "advertisement", "b", lambda m: b"\xdc\x00\x05" + m[1:]),
        _at("an advertisement is another client's", "advertisement", "b", lambda _: FOUR.client("c").advertise()),
        _at("a key is replaced on its way to the server", "advertisement", "b",
            edit(Advertisement, lambda m: {"mask_key": digest("key")})),
        _forged("a client has one key for both purposes", "advertisement",
                lambda f, m: f.signed(Advertisement, lambda a: {"mask_key": a.box_key})(m)),
        _forged("a key is worth nothing", "advertisement",
                lambda f, m: f.signed(Advertisement, lambda _: {"mask_key": bytes(32)})(m)),
        _at("the server replaces a key", "advertised", "a",
            _listed(lambda all: [all[0], _with(all[1], mask_key=digest("key")), *all[2:]])),
        _at("the server replaces a client's own key", "advertised", "b",
            _listed(lambda all: [all[0], _with(all[1], box_key=digest("key")), *all[2:]])),
        _at("the server leaves a client out of its own list", "advertised", "b",
            _listed(lambda all: [all[0], *all[2:]])),
        _at("the server adds a client that is on no roster", "advertised", "a", _listed(lambda all: [*all, fake])),
        _at("the server lists a client twice", "advertised", "a", _listed(lambda all: [*all, all[-1]])),
        _at("the server lists clients in another order", "advertised", "a", _listed(lambda all: all[::-1])),
        _at("the server gives two clients one key", "advertised", "a",
            _listed(lambda all: [*all[:2], _with(all[2], mask_key=all[1].mask_key), all[3]])),
        _at("the server lists too few clients", "advertised", "a", _listed(lambda all: all[:1])),
        _at("the list of keys is cut short", "advertised", "a", lambda m: m[:-1]),
        Case("the threshold is less than an owner asks for",
             replace(FOUR, demand=Demand(clients=2, threshold=0.75))),
        Case("fewer clients than an owner asks for", replace(FOUR, demand=Demand(clients=5, threshold=0.5))),
    ]  # fmt: skip


def _share() -> list[Case]:
    changed = bytes([1])
    return [
        _forged("a client shares with too few", "shares",
                lambda f, m: f.signed(Shares, lambda s: {"boxes": s.boxes[1:]})(m)),
        _at("shares are changed on their way to the server", "shares", "b",
            edit(Shares, lambda s: {"seed": digest("seed")})),
        _at("the server says of one more client than there are that it shared", "inbox", "a",
            edit(Inbox, lambda _: {"shared": b"\x1f"})),
        _at("the server says with too many bytes who shared", "inbox", "a",
            edit(Inbox, lambda _: {"shared": b"\x0f\x00"})),
        _at("the server says that too few shared", "inbox", "a", edit(Inbox, lambda _: {"shared": b"\x01"})),
        _at("the server says to a client that it did not share", "inbox", "a",
            edit(Inbox, lambda m: {"shared": b"\x0e", "boxes": m.boxes[1:], "commitments": m.commitments[1:]})),
        _at("the server keeps a box back", "inbox", "a", edit(Inbox, lambda m: {"boxes": m.boxes[1:]})),
        _at("the server exchanges two boxes", "inbox", "a",
            edit(Inbox, lambda m: {"boxes": (m.boxes[0], m.boxes[2], m.boxes[1], m.boxes[3])})),
        _at("a box is changed", "inbox", "a",
            edit(Inbox, lambda m: {"boxes": (m.boxes[0], changed + m.boxes[1][1:], *m.boxes[2:])})),
        _at("a commitment is changed", "inbox", "a",
            edit(Inbox, lambda m: {"commitments": (m.commitments[0], digest("commitment"), *m.commitments[2:])})),
        _forged("a client deals what is no share", "shares",
                lambda f, _: f.deals(change=lambda both: LIMB.to_bytes(4, "little") + both[4:])),
    ]  # fmt: skip


def _mask() -> list[Case]:
    return [
        _at("a contribution is another client's", "masked", "b", edit(Masked, lambda _: {"client": "c"})),
        _at("the digest of a body is changed", "masked", "b", edit(Masked, lambda _: {"body": digest("body")})),
        Case("a body is changed", FOUR, line=_body("b", lambda body: bytes([body[0] ^ 1]) + body[1:])),
        Case("a body is cut short", FOUR, line=_body("b", lambda body: body[:-1])),
        _at("the server says that a client is in the sum which never shared", "survivors", "a",
            edit(Survivors, lambda _: {"masked": b"\x0f"}), dropped={"d": "share"}),
        _at("the server says to a client that it is not in the sum", "survivors", "a",
            edit(Survivors, lambda _: {"masked": b"\x0e"})),
        _at("the server says that too few are in the sum", "survivors", "a",
            edit(Survivors, lambda _: {"masked": b"\x01"})),
        _at("the server tells one client of other survivors", "survivors", "a",
            edit(Survivors, lambda _: {"masked": b"\x07"})),
    ]  # fmt: skip


def _body(who: str, change: Any) -> Any:
    def line(what: str, client: str, message: bytes, body: bytes) -> tuple[bytes, bytes]:
        return message, change(body) if (what, client) == ("masked", who) else body

    return line


def _confirm() -> list[Case]:
    def without(m: Any) -> dict[str, Any]:
        return {"signatures": m.signatures[1:]}

    def few(m: Any) -> dict[str, Any]:
        return {"confirmed": bitmap([0, 1], 4), "signatures": m.signatures[:2]}

    return [
        _at("a confirmation is another client's", "confirmation", "b", edit(Confirmation, lambda _: {"client": "c"})),
        _forged("a client confirms other survivors", "confirmation", lambda f, _: f.confirms(b"\x07")),
        _at("the server keeps a signature back", "confirmations", "a", edit(Confirmations, without)),
        _at("the server sends too few signatures", "confirmations", "a", edit(Confirmations, few)),
        _at("the server sends a signature of a client that is not in the sum", "confirmations", "a",
            edit(Confirmations, lambda m: {"confirmed": b"\x0f", "signatures": (*m.signatures, bytes(64))}),
            dropped={"d": "mask"}),
        _at("a signature is not of these survivors", "confirmations", "a",
            edit(Confirmations, lambda m: {"signatures": (m.signatures[1], *m.signatures[1:])})),
    ]  # fmt: skip


def _answer() -> list[Case]:
    def wrong(at: int) -> Any:
        def change(forger: Forger, message: bytes) -> bytes:
            return forger.signed(Answer, lambda m: {"shares": (*m.shares[:at], bytes(36), *m.shares[at + 1 :])})(
                message
            )

        return change

    no_share = LIMB.to_bytes(4, "little") + bytes(32)
    two = [Forger(FOUR, name) for name in "bc"]
    answers = [at("answer", f.name, lambda m, f=f: wrong(0)(f, m)) for f in two]
    forger = Forger(FOUR, "d")
    other_key = lines(forger.sees(), at("shares", "d", lambda _: forger.deals(mask_key=digest("another key"))))
    return [
        _forged("an answer has a share too few", "answer",
                lambda f, m: f.signed(Answer, lambda a: {"shares": a.shares[1:]})(m)),
        _forged("an answer has what is no share", "answer",
                lambda f, m: f.signed(Answer, lambda a: {"shares": (no_share, *a.shares[1:])})(m)),
        _at("an answer is changed", "answer", "b", edit(Answer, lambda m: {"shares": (bytes(36), *m.shares[1:])})),
        _forged("one share is wrong, and there are enough others", "answer", wrong(0)),
        _forged("one share is wrong, and there are not enough others", "answer", wrong(0), dropped={"d": "answer"}),
        Case("two shares are wrong", FOUR, line=lines(*(f.sees() for f in two), *answers)),
        _forged("a client dealt shares of another seed than its own", "shares",
                lambda f, _: f.deals(seed=digest("another seed"))),
        Case("a client dealt shares of another mask key than its own, and is gone", FOUR, {"d": "mask"}, other_key),
        Case("a client dealt shares of another mask key than its own, and stays", FOUR, {}, other_key),
    ]  # fmt: skip


def _too_few() -> list[Case]:
    stages = {
        "advertise": "advertise",
        "share": "share",
        "mask": "contribute",
        "confirm": "confirm",
        "answer": "answer",
    }
    return [
        Case(f"two of four do not {verb}", FOUR, dropped={"c": stage, "d": stage}) for stage, verb in stages.items()
    ] + [Case("two of three do not advertise", THREE, dropped={"b": "advertise", "c": "advertise"})]


def _late() -> list[Case]:
    whats = ("advertisement", "shares", "masked", "confirmation")
    stages = ("share", "mask", "confirm", "answer")
    again = [
        Case(f"{what} of a client that has left comes a stage later", FOUR, {"d": at_stage},
             extra=Extra((stage, ""), "d", lambda sent, what=what: sent.get((what, "a"), b"\x90")))
        for what, at_stage, stage in zip(whats, ("advertise", *stages[:3]), stages, strict=True)
    ]  # fmt: skip
    return [
        Case("a message comes twice", FOUR, extra=Extra(("shares", "b"), "b", lambda sent: sent["shares", "b"])),
        Case("a message of a stage before comes again", FOUR,
             extra=Extra(("mask", ""), "b", lambda sent: sent["shares", "b"])),
        Case("a client sends a second, other message in a stage", FOUR,
             extra=Extra(("shares", "b"), "b", lambda sent: sent["shares", "a"])),
        Case("a message of the stage after comes early", FOUR,
             extra=Extra(("share", ""), "b", lambda sent: encode(Masked("b", digest("body"), bytes(64))))),
        Case("somebody who was not invited", FOUR,
             extra=Extra(("share", ""), "e", lambda _: OUTSIDER.client("e").advertise())),
        Case("an answer comes after the end", FOUR, {"d": "answer"},
             extra=Extra(("done", ""), "d", lambda sent: sent["answer", "a"])),
        *again,
    ]  # fmt: skip
