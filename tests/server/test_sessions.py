"""Sessions by themselves: no socket, a clock and a source of bytes of the test's."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ServerError
from shoal.server.coordination import Known
from shoal.server.sessions import WINDOW, Open, Sessions
from shoal.wire.messages import Hello, Session
from shoal.wire.signing import hello_bytes, mac, new_key, public_key_of, sign, to_sign

KEYS = {name: new_key() for name in ("a", "b", "c")}
NONCES = itertools.count()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def sessions(clock: Clock | None = None, *, gone: Callable[[Known], None] = lambda c: None, most: int = 10) -> Sessions:
    drawn = itertools.count(1)
    return Sessions(
        "hearts", "boot", gone=gone, most=most, lasts_s=100.0, clock=clock or Clock(),
        public_key=lambda id: public_key_of(KEYS[id]) if id in KEYS else None,
        known=lambda id: Known(id, id.upper()) if id in KEYS else None,
        entropy=lambda n: next(drawn).to_bytes(n, "big"),
    )  # fmt: skip


def hello(client: str = "a", incarnation: str = "i1", nonce: int | None = None) -> Hello:
    drawn = (next(NONCES) if nonce is None else nonce).to_bytes(16, "big")
    signed = hello_bytes("hearts", "boot", client, incarnation, drawn)
    return Hello(client=client, boot="boot", incarnation=incarnation, nonce=drawn, signature=sign(KEYS[client], signed))


def use(here: Sessions, session: Session, counter: int) -> Open:
    signed = mac(session.mac_key, to_sign("GET", "/", counter, ""))
    return here.check("GET", "/", session=session.session, counter=str(counter), digest="", mac=signed)


def code(call: Callable[[], object]) -> str:
    with pytest.raises(ServerError) as caught:
        call()
    return caught.value.code


def test_a_session_is_its_clients() -> None:
    here = sessions()
    assert use(here, here.hello(hello("b")), 0).client == Known("b", "B")


@given(st.lists(st.integers(0, 3000) | st.integers(0, 2**63 - 1), max_size=60))
def test_no_counter_is_used_twice_and_every_new_one_within_the_window_is_taken(counters: list[int]) -> None:
    session, used, highest = Open("s", Known("a", "A"), "i", b"", 0.0), set[int](), -1
    for counter in counters:
        fresh = counter not in used and counter > highest - WINDOW
        assert session.use(counter) is fresh
        if fresh:
            used.add(counter)
            highest = max(highest, counter)


def test_a_wrong_mac_uses_no_counter_up() -> None:
    here = sessions()
    session = here.hello(hello())
    wrong = {"session": session.session, "counter": "5", "digest": "", "mac": "0" * 64}
    assert code(lambda: here.check("GET", "/", **wrong)) == "bad-mac"
    use(here, session, 5)


def test_a_session_ends_when_it_is_not_used_and_not_before() -> None:
    clock, left = Clock(), list[Known]()
    here = sessions(clock, gone=left.append)
    session = here.hello(hello())
    for counter in range(5):
        clock.now += 99.0
        use(here, session, counter)
    clock.now += 101.0
    assert code(lambda: use(here, session, 9)) == "session-unknown"
    assert left == [Known("a", "A")]


def test_a_hello_ends_the_sessions_that_nobody_uses() -> None:
    clock = Clock()
    here = sessions(clock)
    here.hello(hello("a"))
    clock.now = 1000.0
    here.hello(hello("b"))
    assert len(here) == 1


def test_the_longest_unused_session_makes_room() -> None:
    here = sessions(most=2)
    first, second = here.hello(hello("a")), here.hello(hello("b"))
    use(here, first, 1)
    here.hello(hello("c"))
    assert code(lambda: use(here, second, 1)) == "session-unknown"
    use(here, first, 2)


def test_the_same_agent_may_say_hello_again_and_leaves_its_older_session() -> None:
    here = sessions()
    first, second = here.hello(hello()), here.hello(hello())
    assert code(lambda: use(here, first, 1)) == "session-unknown"
    use(here, second, 1)


def test_an_earlier_incarnation_never_comes_back() -> None:
    left = list[Known]()
    here = sessions(gone=left.append)
    first = here.hello(hello(incarnation="i1"))
    second = here.hello(hello(incarnation="i2"))
    assert left == [Known("a", "A")]
    assert code(lambda: use(here, first, 1)) == "superseded"
    assert code(lambda: here.hello(hello(incarnation="i1"))) == "superseded"
    use(here, second, 1)


def test_a_hello_that_was_seen_is_refused_also_when_another_agent_took_over() -> None:
    here = sessions()
    seen = hello(incarnation="i1")
    here.hello(seen)
    assert code(lambda: here.hello(seen)) == "replayed"
    here.hello(hello(incarnation="i2"))
    assert code(lambda: here.hello(seen)) in ("replayed", "superseded")


def test_hellos_that_are_refused_change_nothing() -> None:
    here = sessions()
    session = here.hello(hello())
    forged = hello(incarnation="i2")
    forged = Hello(client="a", boot="boot", incarnation="i3", nonce=forged.nonce, signature=forged.signature)
    assert code(lambda: here.hello(forged)) == "client-unknown"
    use(here, session, 1)


def test_a_key_is_not_printed_with_its_session() -> None:
    here = sessions()
    opened = use(here, here.hello(hello()), 1)
    assert repr(opened.mac_key) not in repr(opened)
