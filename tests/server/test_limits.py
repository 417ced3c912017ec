"""Rates and memory, by themselves."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ServerError, SettingError
from shoal.server.limits import Buckets, Limits, Room, Transfers


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 30)), max_size=50))
def test_a_bucket_never_gives_more_than_it_held_and_what_flowed_in(asks: list[tuple[float, float]]) -> None:
    clock = Clock()
    buckets, given_out = Buckets(2.0, clock=clock), 0.0
    for passed, amount in asks:
        clock.now += passed
        if buckets.take("a", amount) == 0.0:
            given_out += min(amount, 20.0)
    assert given_out <= 20.0 + 2.0 * clock.now + 1e-6


def test_whoever_waits_as_long_as_was_said_is_let_in() -> None:
    clock = Clock()
    buckets = Buckets(2.0, clock=clock)
    while not (wait_s := buckets.take("a", 7.0)):
        pass
    clock.now += wait_s + 1e-9
    assert buckets.take("a", 7.0) == 0.0


def test_one_keys_haste_is_nobody_elses() -> None:
    buckets = Buckets(1.0, clock=Clock())
    while not buckets.take("a"):
        pass
    assert buckets.empty("a")
    assert not buckets.empty("b")
    assert buckets.take("b") == 0.0


def test_keys_are_forgotten_when_there_are_too_many() -> None:
    buckets = Buckets(1.0, most=100)
    for key in range(1000):
        buckets.take(str(key))
    assert len(buckets) == 100


def test_room_is_never_given_twice_and_everybody_gets_some() -> None:
    async def all_of_them() -> int:
        room, held, most, done = Room(100, patience_s=30), 0, 0, 0
        draw = random.Random(1)

        async def one(size: int) -> None:
            nonlocal held, most, done
            async with room.taken(size):
                held += min(size, 100)
                most = max(most, held)
                await asyncio.sleep(draw.random() / 1000)
                held -= min(size, 100)
            done += 1

        await asyncio.gather(*(one(draw.randrange(1, 150)) for _ in range(200)))
        assert done == 200
        async with room.taken(100):
            return most

    assert asyncio.run(all_of_them()) <= 100


def test_room_survives_those_who_give_up_waiting() -> None:
    async def some_leave() -> None:
        room = Room(10, patience_s=30)
        async with room.taken(10):
            waiting = [asyncio.ensure_future(_hold(room)) for _ in range(10)]
            await asyncio.sleep(0.01)
            for task in waiting[::2]:
                task.cancel()
        await asyncio.wait(waiting)
        async with room.taken(10):
            pass

    asyncio.run(some_leave())


async def _hold(room: Room) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        async with room.taken(10):
            await asyncio.sleep(0.001)


def test_whoever_finds_no_room_for_too_long_is_told_to_come_again() -> None:
    async def full() -> str:
        room = Room(10, patience_s=0.01)
        async with room.taken(10):
            with pytest.raises(ServerError) as caught:
                async with room.taken(1):
                    pass
        async with room.taken(10):
            return caught.value.code

    assert asyncio.run(full()) == "busy"


def test_a_client_has_so_many_transfers_at_a_time() -> None:
    transfers = Transfers(2)
    with (
        transfers.one("a"),
        transfers.one("a"),
        transfers.one("b"),
        pytest.raises(ServerError, match="at most 2"),
        transfers.one("a"),
    ):
        pass
    with transfers.one("a"):
        pass


def test_limits_are_positive_numbers() -> None:
    with pytest.raises(SettingError, match="client_rate is a number over 0"):
        Limits(client_rate=0)


def test_a_body_is_waited_for_by_its_size() -> None:
    assert Limits(patience_s=10, slowest=1000).seconds_for(5000) == 15.0
