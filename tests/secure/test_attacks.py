"""Attacks on a secure sum, each with what comes of it: a party is named, or the sum is what it would have been."""

from __future__ import annotations

import re
from dataclasses import replace

import msgspec
import pytest

from shoal.errors import SecureSumError
from shoal.secure import keys
from shoal.secure.messages import Advertisement, Answer, Shares, decode, encode
from shoal.secure.terms import Demand
from shoal.wire import signing

from . import twin
from .adversary import Adversary
from .forgery import Forger, at, lines
from .session import SENT, STAGES, TOLD, act, clients, digest, play, transcript


def other_model(group, names):
    """The session as clients see it that were given another model."""
    other = msgspec.structs.replace(group.terms, model=digest("another model"))
    return replace(group, told=dict.fromkeys(names, other))


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["box_key", "mask_key"])
def test_a_server_that_replaces_a_clients_key_is_found_out_before_anything_is_shared(which):
    adversary = Adversary(clients(4))
    own = keys.public_bytes(keys.private_key(digest("the server's own key")))
    adversary.advertisements["b"] = msgspec.structs.replace(adversary.advertisements["b"], **{which: own})
    for name in "acd":
        with pytest.raises(SecureSumError, match="the keys of 'b' are not signed by it") as caught:
            adversary.share([name])
        assert caught.value.culprit == "b"
        assert adversary.clients[name].stage == "aborted"


def test_a_server_cannot_sit_between_two_clients_with_keys_of_its_own_for_each():
    adversary = Adversary(clients(4))
    right = dict(adversary.advertisements)
    own = keys.public_bytes(keys.private_key(digest("the server's own key")))
    for fooled, other in ("ab", "ba"):
        adversary.advertisements = {**right, other: msgspec.structs.replace(right[other], box_key=own)}
        with pytest.raises(SecureSumError, match=f"the keys of '{other}' are not signed"):
            adversary.share([fooled])
    assert not adversary.shares


def test_keys_that_were_signed_for_another_session_are_refused():
    before = clients(4)
    now = replace(before, terms=msgspec.structs.replace(before.terms, session=digest("the next session")))
    adversary = Adversary(now)
    adversary.advertisements["b"] = decode(before.client("b").advertise(), Advertisement)
    with pytest.raises(SecureSumError, match="the keys of 'b' are not signed by it for this session"):
        adversary.share(["a"])


def test_clients_that_the_server_invents_are_on_no_roster_and_stop_the_session():
    invented = clients(6)
    group = replace(invented, names=invented.names[:2])
    adversary = Adversary(group)
    for name in "cdef":
        adversary.advertisements[name] = decode(invented.client(name).advertise(), Advertisement)
        adversary.names.append(name)
    with pytest.raises(SecureSumError, match="'c', which is not on this client's roster") as caught:
        adversary.share(["a"])
    assert caught.value.culprit == "c"


def test_an_identity_that_the_server_made_for_a_known_name_is_refused():
    adversary = Adversary(clients(4))
    text = keys.advertise_text(adversary.group.terms, "b", digest("box"), digest("mask"))
    signature = signing.sign(digest("the server's identity"), text)
    adversary.advertisements["b"] = Advertisement("b", digest("box"), digest("mask"), signature)
    with pytest.raises(SecureSumError, match="the keys of 'b' are not signed"):
        adversary.share(["a"])


LOW_ORDER = [  # every point of X25519 whose order divides 8, as RFC 7748, section 6.1, warns of
    bytes(32),
    (1).to_bytes(32, "little"),
    (325606250916557431795983626356110631294008115727848805560023387167927233504).to_bytes(32, "little"),
    (39382357235489614581723060781553021112529911719440698176882885853963445705823).to_bytes(32, "little"),
    (2**255 - 20).to_bytes(32, "little"),
    (2**255 - 19).to_bytes(32, "little"),
    (2**255 - 18).to_bytes(32, "little"),
]


@pytest.mark.parametrize("point", LOW_ORDER, ids=range(len(LOW_ORDER)))
@pytest.mark.parametrize("which", ["box_key", "mask_key"])
def test_a_key_with_which_every_secret_is_zero_is_refused_at_the_door(point, which):
    group = clients(4)
    forger = Forger(group, "b")
    change = forger.signed(Advertisement, lambda _: {which: point})
    played = play(group, line=at("advertisement", "b", change))
    assert played.refused[0][2].culprit == "b"
    assert "worth nothing" in str(played.refused[0][2])
    assert played.result == group.plain(tuple("acd"))


@pytest.mark.parametrize("which", ["box_key", "mask_key"])
def test_a_client_refuses_such_a_key_too_when_the_server_lets_it_in(which):
    group = clients(4)
    adversary, forger = Adversary(group), Forger(group, "b")
    change = forger.signed(Advertisement, lambda _: {which: LOW_ORDER[0]})
    adversary.advertisements["b"] = decode(change(encode(adversary.advertisements["b"])), Advertisement)
    forger.everybody, forger.context = tuple(adversary.advertisements.values()), adversary.context
    with pytest.raises(SecureSumError, match="the keys of 'b' are worth nothing") as caught:
        adversary.share(["a", "c", "d"])
        adversary.shares["b"] = decode(forger.deals(), Shares)
        adversary.mask(["a"])
    assert caught.value.culprit == "b"


# -- what clients are told --------------------------------------------------------------------------------------------


def test_two_clients_with_different_model_bytes_share_nothing():
    group = other_model(clients(4), "b")
    adversary = Adversary(group)
    for name in "abcd":
        with pytest.raises(SecureSumError, match="not signed by it for this session: it was told of other terms"):
            adversary.share([name])
    assert not adversary.shares


def test_an_honest_server_refuses_the_keys_of_a_client_that_was_given_another_model():
    group = other_model(clients(4), "b")
    played = play(group)
    assert [(what, client) for what, client, _ in played.refused] == [("advertisement", "b")]
    assert played.result == group.plain(tuple("acd"))


@pytest.mark.parametrize("field", ["federation", "run", "session", "round", "attempt", "model", "plan", "size", "bits",
                                   "slots", "threshold", "corrupt"])  # fmt: skip
def test_keys_are_bound_to_every_field_of_the_terms(field):
    group = clients(4)
    other = {"federation": "x", "run": "x", "round": 9, "attempt": 9, "size": 9, "bits": 64, "slots": 9, "threshold": 3,
             "corrupt": 0.1}.get(field, digest("another"))  # fmt: skip
    terms = msgspec.structs.replace(group.terms, **{field: other})
    adversary = Adversary(replace(group, told={"b": terms}))
    with pytest.raises(SecureSumError, match="the keys of 'b' are not signed"):
        adversary.share(["a"])


def test_two_lists_of_keys_make_boxes_that_cannot_be_opened():
    adversary = Adversary(clients(5, threshold=3))
    adversary.share(["a"])  # of five keys
    adversary.names = ["a", "b", "c", "d"]
    adversary.share(["b", "c", "d"])  # of four
    with pytest.raises(SecureSumError, match="the shares of 'a' cannot be read") as caught:
        adversary.mask(["b"])
    assert caught.value.culprit == "a"


def test_a_client_with_masks_for_a_few_is_in_no_sum_with_others():
    """Else those few could leave, and nobody's mask but its own would be on its contribution."""
    group = clients(5)
    group = replace(group, demand=Demand(clients=2, threshold=0.1))
    adversary = Adversary(group)
    adversary.share()
    adversary.clients["a"].mask(adversary.inbox("a", shared="abc"), group.value("a"), group.slots("a"))
    with pytest.raises(SecureSumError, match="of which it said before that they had left"):
        adversary.confirm("a", "ade")


def test_clients_that_are_told_of_different_survivors_answer_nothing():
    adversary = Adversary(clients(4))
    adversary.share()
    adversary.mask()
    everybody, without_d = "abcd", "abc"
    for name in "ab":
        adversary.confirm(name, without_d)
    for name in "cd":
        adversary.confirm(name, everybody)
    few, said = adversary.answers("ab", without_d, "abc")
    many, more = adversary.answers("cd", everybody, "abcd")
    assert not few
    assert not many
    for sentence in (*said.values(), *more.values()):
        assert re.search("has not confirmed these survivors", sentence)


def test_a_second_request_to_unmask_is_answered_with_nothing():
    adversary = Adversary(clients(4))
    adversary.share()
    adversary.mask()
    for name in "abcd":
        adversary.confirm(name, "abcd")
    confirmations = adversary.confirmations("abcd", "abcd")
    adversary.clients["a"].answer(confirmations)
    for again in (confirmations, adversary.confirmations("abc", "abcd")):
        with pytest.raises(SecureSumError, match="it is not the turn of 'answer'"):
            adversary.clients["a"].answer(again)
    assert adversary.clients["a"].stage == "done"


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_is_called_out_of_turn_says_nothing_more(stage):
    group = clients(4)
    wrong = group.client("a")
    method = {"advertise": "share"}.get(stage, stage)
    arguments = (b"", group.value("a"), group.slots("a")) if method == "mask" else (b"",)
    with pytest.raises(SecureSumError, match="it is not the turn of"):
        getattr(wrong, method)(*arguments)
    assert wrong.stage == "aborted"
    with pytest.raises(SecureSumError, match="is at 'aborted': it is not the turn of 'advertise'"):
        wrong.advertise()


@pytest.mark.parametrize("stage", STAGES)
def test_a_session_that_is_closed_while_it_works_says_nothing_made_of_erased_secrets(stage):
    """Here by what signs, in place of another thread: a mask of an erased seed would be one that everybody knows."""
    group = clients(3)
    sent = transcript(group)
    ends = []

    def sign(text):
        if ends:
            client.close()
        return signing.sign(group.identity("b"), text)

    client = group.client("b", sign=sign)
    for now, told in zip(STAGES, ("", *TOLD.values()), strict=True):
        if now == stage:
            ends.append(True)
            with pytest.raises(SecureSumError, match=f"was ended while it was at '{stage}'"):
                act(group, client, stage=now, name="b", told=sent.get((told, "b"), b""))
            break
        act(group, client, stage=now, name="b", told=sent.get((told, "b"), b""))
    assert client.stage == "aborted"


# -- late and replayed ------------------------------------------------------------------------------------------------


def test_a_contribution_that_came_too_late_cannot_be_read_though_its_pair_masks_can():
    group = clients(4)
    adversary = Adversary(group)
    adversary.share()
    adversary.mask()  # the server has d's contribution, and says that it came too late
    for name in "abc":
        adversary.confirm(name, "abc")
    given, _ = adversary.answers("abc", "abc", "abc")
    terms = twin.terms_of(group.terms)
    session = twin.Session(terms, (3, 3), adversary.advertised)
    mask_key = twin.rebuilt({place: given[name][3] for place, name in enumerate("abc", start=1)})
    assert twin.public(mask_key) == session.mask_keys[3]
    read = session.entries(adversary.bodies["d"])
    for other in range(3):
        read = session.added(read, session.mask(session.pair_key(mask_key, 3, other)), 1)
    plain = group.value("d").tolist(), group.slots("d").tolist()
    own = session.mask(session.self_key(twin.Client(group.entropy("d"), terms, "d").seed, 3))
    assert read == session.added(plain, own, 1)  # its own mask is left, and nobody has given a share of that seed
    assert all(a != b for a, b in zip(read[0], plain[0], strict=True))


@pytest.mark.parametrize("what", [*SENT.values(), *TOLD.values()])
def test_a_message_of_the_session_before_is_refused_wherever_it_comes_again(what):
    before = clients(4)
    now = replace(before, terms=msgspec.structs.replace(before.terms, session=digest("the next session")))
    old = transcript(before)
    for name in "ac":
        played = play(now, line=at(what, name, lambda _, name=name: old[what, name]))
        if what == "survivors":  # a set of the same clients: nothing in it is of a session
            assert not played.refused
        else:
            assert [one[:2] for one in played.refused] == [(what, name)]
        assert played.result == now.plain(played.sum.clients)


@pytest.mark.parametrize("stage", STAGES)
def test_a_message_that_is_sent_again_in_any_stage_changes_nothing(stage):
    group = clients(4)
    sent = {}

    def line(what, client, message, body):
        sent[what, client] = message, body
        return message, body

    def opens(now, played):
        for (what, client), (message, body) in list(sent.items()):
            if now == stage and what in SENT.values():
                played.server.receive(client, message, body=body or None)

    played = play(group, line=line, opens=opens)
    assert not played.refused
    assert played.result == group.plain(group.names)


@pytest.mark.parametrize("made", STAGES)
@pytest.mark.parametrize("stage", [*STAGES, "done"])
def test_a_message_of_another_stage_is_refused_and_changes_nothing(stage, made):
    group = clients(4)
    sent = transcript(group)
    said = []

    def opens(now, played):
        if now == stage and made != stage:
            with pytest.raises(SecureSumError) as caught:
                # of d, who has left: so it is not a message that was taken already
                played.server.receive("d", sent[SENT[made], "d"], body=bytes(group.terms.body_bytes))
            said.append(caught.value.culprit)

    played = play(group, dropped={"d": "advertise"}, opens=opens)
    assert said == ([] if made == stage else ["d"])
    assert played.result == group.plain(tuple("abc"))


# -- wrong shares -----------------------------------------------------------------------------------------------------


def wrong_answer(group, name, places):
    forger = Forger(group, name)

    def changed(message):
        shares = [bytes(36) if i in places else share for i, share in enumerate(message.shares)]
        return {"shares": tuple(shares)}

    return lines(forger.sees(), at("answer", name, forger.signed(Answer, changed)))


@pytest.mark.parametrize("places", [{0}, {3}, {0, 1, 2, 3}])
@pytest.mark.parametrize("culprit", "abc")
def test_who_answers_with_wrong_shares_is_named_and_the_sum_is_recovered(culprit, places):
    group = clients(4)
    played = play(group, line=wrong_answer(group, culprit, places))
    assert played.sum.culprits == (culprit,)
    assert played.result == group.plain(group.names)


def test_a_wrong_share_that_is_not_needed_changes_nothing():
    group = clients(4)
    played = play(group, line=wrong_answer(group, "d", {0}))  # three are enough, and the first three are taken
    assert played.result == group.plain(group.names)
    assert played.sum.culprits == ()


def test_too_many_wrong_shares_end_the_session_and_all_who_sent_them_are_named():
    group = clients(4)
    played = play(group, line=lines(wrong_answer(group, "b", {0}), wrong_answer(group, "d", {0})))
    assert played.sum is None
    assert played.error.culprit == "b"
    assert "'b', 'd'" in str(played.error)


def test_a_dealer_of_wrong_shares_is_named_and_no_sum_is_made_up():
    group = clients(4)
    forger = Forger(group, "c")
    dealt = at("shares", "c", lambda _: forger.deals(seed=digest("another seed")))
    played = play(group, line=lines(forger.sees(), dealt))
    assert played.sum is None
    assert played.error.culprit == "c"


# -- the crowd --------------------------------------------------------------------------------------------------------


def test_a_session_is_not_for_one_client_whatever_the_terms_say():
    group = clients(3, threshold=1)
    played = play(group, dropped={"b": "advertise", "c": "advertise"})
    assert played.sum is None
    assert "at least 2" in str(played.error)


@pytest.mark.parametrize("stage", STAGES[:3])
def test_fewer_than_a_client_asks_for_and_it_says_nothing_more(stage):
    group = replace(clients(5), demand=Demand(clients=4, threshold=0.1))
    played = play(group, dropped={"d": stage, "e": stage})
    assert played.sum is None
    assert all("it takes 4" in said for said in played.said[:3])
    assert all(played.sessions[name].stage == "aborted" for name in "abc")


def test_a_server_that_lowers_the_threshold_is_refused_by_the_owners_own_limit():
    group = replace(clients(6, threshold=2), demand=Demand(clients=2, threshold=0.5))
    played = play(group)
    assert played.sum is None
    assert all("the owner of this client's data asks for a fraction of 0.5" in said for said in played.said[:6])


def test_a_server_that_denies_spies_is_refused_by_the_owners_own_limit():
    group = clients(140, threshold=120, size=1, slots=0)
    group = replace(group, terms=msgspec.structs.replace(group.terms, corrupt=0.0))
    adversary = Adversary(replace(group, shape=None), group.names)
    with pytest.raises(SecureSumError, match="if no more than 0 of the clients work with the server"):
        adversary.share([group.names[0]])
