"""What thresholds are for: with one share less a contribution, or the sum of a few, is read; with it it is not."""

from __future__ import annotations

from shoal.errors import SecureSumError
from shoal.secure import keys
from shoal.secure.messages import Confirmation, decode
from shoal.secure.parameters import Shape

from . import twin
from .adversary import Adversary
from .forgery import Forger
from .session import clients


def both_secrets_of_a(threshold):
    """What a server and its spy `e` get of five clients of which it tells two that `a` is in the sum, and two that not.

    The shares of the seed of `a`, and of its mask key, by the point at which they lie.
    """
    adversary = Adversary(clients(5, threshold=threshold))
    adversary.share()
    adversary.mask()
    with_a, without_a = "abcde", "bcde"
    spy = Forger(adversary.group, "e")
    spy.everybody, spy.context = tuple(adversary.advertisements.values()), adversary.context
    for survivors, told in ((with_a, "ab"), (without_a, "cd")):
        for name in told:
            adversary.confirm(name, survivors)
        bits = adversary.bits(survivors)
        adversary.signatures[bits, "e"] = decode(spy.confirms(bits), Confirmation).signature
    seeds, _ = adversary.answers("ab", with_a, "abe")
    mask_keys, said = adversary.answers("cd", without_a, "cde")
    agreed = keys.agree(keys.private_key(spy.secrets.box_key), keys.public_key(spy.everybody[0].box_key), owner="a")
    own = keys.unseal(keys.box_key(agreed, spy.context, "a", "e"), adversary.shares["a"].boxes[4], "a", "e")
    return (
        adversary,
        said,
        [
            {5: bytes(share), **{"abcde".index(name) + 1: shares[0] for name, shares in answered.items()}}
            for share, answered in ((own[:36], seeds), (own[36:], mask_keys))
        ],
    )


def test_both_secrets_of_a_client_cannot_be_had_with_a_threshold_that_counts_the_spy_in():
    _, said, (seeds, mask_keys) = both_secrets_of_a(threshold=4)  # 2 * 4 > 5 + 1
    assert list(seeds) == list(mask_keys) == [5]
    assert all("it takes 4" in sentence for sentence in said.values())


def test_the_bound_is_tight_with_a_threshold_of_one_less_a_server_and_its_spy_read_a_contribution():
    """What docs/secure.md says of thresholds, 2 t > n + c, does not hold here: 2 * 3 = 5 + 1."""
    adversary, _, (seeds, mask_keys) = both_secrets_of_a(threshold=3)
    group = adversary.group
    session = twin.Session(twin.terms_of(group.terms), (4, 3), adversary.advertised)
    seed, mask_key = twin.rebuilt(seeds), twin.rebuilt(mask_keys)
    read = session.added(session.entries(adversary.bodies["a"]), session.mask(session.self_key(seed, 0)), -1)
    for other in range(1, 5):
        read = session.added(read, session.mask(session.pair_key(mask_key, 0, other)), -1)
    assert read == (group.value("a").tolist(), group.slots("a").tolist())


def cut(threshold):
    """A session on a ring of twelve, of which the server leaves out two neighbours here and two there.

    Those left, in two halves; and what they answer.
    """
    adversary = Adversary(clients(12, threshold=8, shape=Shape(4, threshold), size=3, slots=1))
    adversary.share()
    number = {name: i for i, name in enumerate(adversary.names)}
    session = twin.Session(twin.terms_of(adversary.group.terms), (4, threshold), adversary.advertised)
    ring = sorted(adversary.names, key=lambda name: twin.sha256(session.context + name.encode()))
    halves = ring[2:6], ring[8:12]
    left = sorted(halves[0] + halves[1])
    adversary.mask(left)
    said = []
    for name in left:
        try:
            adversary.confirm(name, left)
        except SecureSumError as error:
            said.append(str(error))
    answers = {}
    for name in left if not said else ():
        signers = set(adversary.holders(name)) & {*left}
        answers[number[name]] = adversary.answers([name], left, signers)[0][name]
    return adversary, session, halves, answers, said


def test_a_ring_is_cut_by_a_server_that_chooses_who_is_gone_if_half_the_neighbours_are_enough():
    """What a shape from outside the rule must not be: each half is read, though it takes eight."""
    adversary, session, halves, answers, _ = cut(threshold=2)
    everybody = range(12)
    for half in halves:
        total = [0] * 3, [0]
        for name in half:
            own = adversary.names.index(name)
            seed = twin.secret_of(session, own, everybody, answers)
            total = session.added(total, session.entries(adversary.bodies[name]), 1)
            total = session.added(total, session.mask(session.self_key(seed, own)), -1)
            for gone in session.holders(own):
                if adversary.names[gone] not in adversary.bodies:
                    mask_key = twin.secret_of(session, gone, everybody, answers)
                    mask = session.mask(session.pair_key(mask_key, gone, own))
                    total = session.added(total, mask, -1 if own < gone else 1)
        assert total == adversary.group.plain(tuple(half))


def test_a_ring_is_not_cut_if_it_takes_more_than_half_the_neighbours():
    _, _, _, answers, said = cut(threshold=3)
    assert not answers
    assert said == ["2 of those who hold shares of this client are in the sum, and it takes 3"] * 4  # ends of halves
