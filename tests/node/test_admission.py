"""Certificates and invitations admit whom they should, and nobody else."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import iroh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, RemoteProtocolError
from folkmoot.node import handshake
from folkmoot.node.admission import (
    Certificate,
    device_of,
    issue,
    read_invitation,
    verify,
    write_invitation,
)
from folkmoot.node.handshake import NEWCOMER
from folkmoot.node.identity import Identity
from folkmoot.node.invitations import MAX_USES, Invitations, Open, expiry
from folkmoot.node.link import PeerUnreachable

ROOT, HELPER, GUEST, OTHER = (iroh.SecretKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3, 4))


def name(key: iroh.SecretKey) -> DeviceId:
    return device_of(key.public().to_bytes())


MOOT = name(ROOT)
ENDORSED = issue(ROOT, MOOT, name(HELPER), may_invite=True, issued_at=5)
DIRECT = issue(ROOT, MOOT, name(GUEST), may_invite=False, issued_at=6)
DELEGATED = issue(HELPER, MOOT, name(GUEST), may_invite=False, issued_at=7, endorsement=ENDORSED)

# ---- certificates ----------------------------------------------------------------------------------


@pytest.mark.parametrize("certificate", [DIRECT, DELEGATED])
def test_certificates_hold_after_a_round_trip(certificate: Certificate) -> None:
    assert Certificate.from_bytes(certificate.to_bytes()) == certificate
    verify(certificate, MOOT, name(GUEST))
    assert len(certificate.to_bytes()) < 400


FORGERIES = {
    "another device's": (DIRECT, MOOT, name(OTHER)),
    "another moot's": (DIRECT, name(OTHER), name(GUEST)),
    "raised rights": (replace(DIRECT, may_invite=True), MOOT, name(GUEST)),
    "another date": (replace(DIRECT, issued_at=0), MOOT, name(GUEST)),
    "another member": (replace(DIRECT, member=name(OTHER)), MOOT, name(OTHER)),
    "self-signed": (issue(GUEST, MOOT, name(GUEST), may_invite=False, issued_at=1), MOOT, name(GUEST)),
    "issued by a guest": (
        issue(GUEST, MOOT, name(OTHER), may_invite=False, issued_at=1, endorsement=DIRECT),
        MOOT,
        name(OTHER),
    ),
    "delegated twice": (
        issue(GUEST, MOOT, name(OTHER), may_invite=False, issued_at=1, endorsement=DELEGATED),
        MOOT,
        name(OTHER),
    ),
    "right passed on": (
        issue(HELPER, MOOT, name(GUEST), may_invite=True, issued_at=1, endorsement=ENDORSED),
        MOOT,
        name(GUEST),
    ),
    "endorsement of somebody else": (replace(DELEGATED, endorsement=DIRECT), MOOT, name(GUEST)),
    "without its endorsement": (replace(DELEGATED, endorsement=None), MOOT, name(GUEST)),
    "issuer changed": (replace(DIRECT, issuer=name(HELPER)), MOOT, name(GUEST)),
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_forgeries_are_refused(forgery: str) -> None:
    with pytest.raises(AdmissionError):
        verify(*FORGERIES[forgery])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100) | st.integers(0, 300).map(lambda cut: DELEGATED.to_bytes()[:cut]))
def test_random_bytes_are_no_certificate(data: bytes) -> None:
    try:
        certificate = Certificate.from_bytes(data)
    except AdmissionError:
        return
    assert certificate == DELEGATED


# ---- invitations as texts --------------------------------------------------------------------------

ADDRESS = str(iroh.EndpointTicket.from_addr(iroh.EndpointAddr(HELPER.public(), None, ["192.0.2.1:4151"])))
TEXT = write_invitation(HELPER, ADDRESS, MOOT, b"s" * 16, 1_234)


@pytest.mark.parametrize("text", [TEXT, TEXT.upper(), f"  {TEXT[:50]}\n  {TEXT[50:]}\n"])
def test_invitations_survive_copying(text: str) -> None:
    invitation = read_invitation(text)
    assert (invitation.address, invitation.inviter, invitation.moot) == (ADDRESS, name(HELPER), MOOT)
    assert (invitation.secret, invitation.expires_at) == (b"s" * 16, 1_234)
    assert "ssss" not in repr(invitation)
    assert TEXT.isalnum()
    assert TEXT == TEXT.lower()


@settings(max_examples=200, deadline=None)
@given(st.integers(len("folkmoot1"), len(TEXT) - 2), st.sampled_from("abcdefghijklmnopqrstuvwxyz234567018-é"))
def test_a_typing_error_is_told_from_a_refusal(place: int, letter: str) -> None:
    typed = TEXT[:place] + letter + TEXT[place + 1 :]
    if typed == TEXT:
        return
    with pytest.raises(AdmissionError, match="damaged"):
        read_invitation(typed)


@pytest.mark.parametrize("text", [TEXT[:-1], TEXT[:60], TEXT + "a", TEXT + "a" * 5_000, "folkmoot1"])
def test_a_missing_end_is_damage(text: str) -> None:
    with pytest.raises(AdmissionError, match="damaged"):
        read_invitation(text)


@pytest.mark.parametrize("text", ["", "hello", "folkmoot", ADDRESS])
def test_other_texts_are_no_invitations(text: str) -> None:
    with pytest.raises(AdmissionError, match="no invitation"):
        read_invitation(text)


def test_an_invitation_that_its_inviter_did_not_sign_is_forged() -> None:
    for text in (
        write_invitation(OTHER, ADDRESS, MOOT, b"s" * 16, 1_234),
        write_invitation(HELPER, "nowhere", MOOT, b"s" * 16, 1_234),
        write_invitation(HELPER, ADDRESS, MOOT, b"short", 1_234),
    ):
        with pytest.raises(AdmissionError, match="not genuine"):
            read_invitation(text)


# ---- the inviter's book ----------------------------------------------------------------------------


def redeem(book: Invitations, secret: bytes, newcomer: DeviceId, now: float) -> Open:
    (found,) = book.redeem_all([(secret, newcomer)], now)
    if isinstance(found, AdmissionError):
        raise found
    return found


def test_an_invitation_admits_as_often_as_it_says(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    book = Invitations.load(tmp_path)
    book.add(b"a" * 16, uses=2, expires_at=100, delegate=True, now=0.0)
    assert redeem(book, b"a" * 16, name(GUEST), 1.0).delegate
    # The answer may have been lost, and the inviter restarted: the same device may ask again.
    book = Invitations.load(tmp_path)
    redeem(book, b"a" * 16, name(GUEST), 1.0)
    redeem(book, b"a" * 16, name(OTHER), 1.0)
    with pytest.raises(AdmissionError, match="used up"):
        redeem(book, b"a" * 16, name(HELPER), 1.0)
    redeem(book, b"a" * 16, name(GUEST), 101.0)
    with pytest.raises(AdmissionError, match="unknown"):
        redeem(book, b"b" * 16, name(GUEST), 1.0)
    assert (b"a" * 16).hex() not in (tmp_path / "invitations.json").read_text()


def test_expired_invitations_say_so_for_a_while_and_are_then_forgotten(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    book = Invitations.load(tmp_path)
    book.add(b"a" * 16, uses=1, expires_at=100, delegate=False, now=0.0)
    with pytest.raises(AdmissionError, match="expired"):
        redeem(book, b"a" * 16, name(GUEST), 100.0)
    book.add(b"b" * 16, uses=1, expires_at=2_000_000, delegate=False, now=1_000_000.0)
    with pytest.raises(AdmissionError, match="unknown"):
        redeem(book, b"a" * 16, name(GUEST), 1_000_000.0)
    for uses in (0, MAX_USES + 1):
        with pytest.raises(AdmissionError, match="uses"):
            book.add(b"c" * 16, uses=uses, expires_at=100, delegate=False, now=0.0)
    for ttl_s in (0.0, -1.0, float("nan"), 1e12):
        with pytest.raises(AdmissionError, match="possible"):
            expiry(0.0, ttl_s)


# ---- joining over the network ----------------------------------------------------------------------


async def test_a_newcomer_becomes_a_member(lan: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    far = (DeviceId("cd" * 32), "an address")
    one, two = await lan.found(contacts=lambda: [far]), await lan.device()
    invitation = await one.network.invite()
    assert await two.network.join(invitation) == [(one.id, lan.book[one.id]), far]
    (entry,) = one.identity.invitations._open.values()
    assert entry.redeemed == (two.id,)
    again = Identity.open(two.identity.home)
    assert again.membership == two.identity.membership
    assert again.membership is not None
    assert again.membership.moot == one.identity.membership.moot
    assert again.membership.name == "the moot"
    assert not again.may_invite
    await (await two.network.open(one.id)).cancel()
    # Inside already: a second start with the same command line is no error.
    assert await two.network.join(invitation) == [(one.id, lan.book[one.id])]
    assert invitation not in caplog.text
    assert read_invitation(invitation).secret.hex() not in caplog.text


async def test_an_invitation_is_spent_after_one_newcomer(lan: Any) -> None:
    one, two, three = await lan.found(), await lan.device(), await lan.device()
    invitation = await one.network.invite()
    await two.network.join(invitation)
    with pytest.raises(AdmissionError, match="refuses.*used up"):
        await three.network.join(invitation)
    assert three.identity.membership is None
    with pytest.raises(PeerUnreachable, match="no moot|no member"):
        await three.network.open(one.id)


def test_many_who_knock_at_once_are_judged_in_order(tmp_path: Path) -> None:
    book = Invitations.load(tmp_path)
    book.add(b"a" * 16, uses=2, expires_at=100, delegate=False, now=0.0)
    shown = [(b"a" * 16, name(who)) for who in (GUEST, OTHER, GUEST, HELPER)] + [(b"b" * 16, name(GUEST))]
    verdicts = book.redeem_all(shown, 1.0)
    assert [isinstance(verdict, AdmissionError) for verdict in verdicts] == [False, False, False, True, True]
    assert Invitations.load(tmp_path).redeem_all(shown, 1.0)[0] == verdicts[2]


async def test_several_uses_at_once(lan: Any) -> None:
    one = await lan.found()
    newcomers = [await lan.device() for _ in range(4)]
    invitation = await one.network.invite(uses=3)
    results = await asyncio.gather(*(n.network.join(invitation) for n in newcomers), return_exceptions=True)
    assert sum(isinstance(result, AdmissionError) for result in results) == 1
    assert sum(newcomer.identity.membership is not None for newcomer in newcomers) == 3


async def test_a_lost_answer_can_be_asked_for_again(lan: Any) -> None:
    one, two, three = await lan.found(), await lan.device(), await lan.device()
    invitation = await one.network.invite()
    await one.network._door._redeem(read_invitation(invitation).secret, two.id, 0.0)
    with pytest.raises(AdmissionError, match="used up"):
        await three.network.join(invitation)
    await two.network.join(invitation)
    assert two.identity.membership is not None


async def test_a_newcomer_that_gives_up_during_the_write_does_not_free_the_turn(lan: Any) -> None:
    one = await lan.found()
    secret = read_invitation(await one.network.invite()).secret
    door, book = one.network._door, one.identity.invitations
    began, may_end = threading.Event(), threading.Event()

    class Slow:
        """The invitations on a disk that takes its time."""

        def redeem_all(self, shown: Any, now: float) -> Any:
            began.set()
            may_end.wait(10)
            return book.redeem_all(shown, now)

    door._identity.invitations = Slow()
    first = asyncio.create_task(door._redeem(secret, name(GUEST), 0.0))
    await asyncio.to_thread(began.wait, 10)
    second = asyncio.create_task(door._redeem(secret, name(OTHER), 0.0))
    first.cancel()
    await asyncio.wait([first])
    assert door._turn.locked()
    may_end.set()
    with pytest.raises(AdmissionError, match="used up"):
        await second


async def test_an_expired_invitation_is_refused(lan: Any) -> None:
    now = 1_000.0
    one, two = await lan.found(now=lambda: now), await lan.device()
    invitation = await one.network.invite(ttl_s=60.0)
    now = 1_062.0
    with pytest.raises(AdmissionError, match="expired"):
        await two.network.join(invitation)


async def test_invitations_survive_the_inviters_restart(lan: Any) -> None:
    one, two = await lan.found(), await lan.device()
    port = one.network.port
    invitation = await one.network.invite()
    await one.network.close()
    await lan.device(Identity.open(one.identity.home), listen=f"127.0.0.1:{port}")
    await two.network.join(invitation)
    assert two.identity.membership is not None


async def test_the_inviter_must_be_up(lan: Any) -> None:
    one, two = await lan.found(), await lan.device(dial_s=0.3)
    invitation = await one.network.invite()
    await one.network.close()
    with pytest.raises(PeerUnreachable, match="must be running"):
        await two.network.join(invitation)


async def test_a_made_up_secret_is_refused(lan: Any) -> None:
    one, two = await lan.found(), await lan.device()
    moot = one.identity.membership.moot
    made_up = write_invitation(one.identity.key, lan.book[one.id], moot, b"g" * 16, 2**40)
    with pytest.raises(AdmissionError, match="unknown"):
        await two.network.join(made_up)


async def test_only_those_who_may_can_invite(lan: Any) -> None:
    one, two, three = await lan.found(), await lan.device(), await lan.device()
    four = await lan.device()
    await two.network.join(await one.network.invite(delegate=True))
    assert two.identity.may_invite
    with pytest.raises(AdmissionError, match="only the founder"):
        await two.network.invite(delegate=True)
    # Losing the founder stops nothing else.
    await one.network.close()
    await three.network.join(await two.network.invite())
    assert three.identity.membership.moot == one.identity.membership.moot
    for stranger in (three, four):
        with pytest.raises(AdmissionError, match="may not invite"):
            await stranger.network.invite()
    (await (await three.network.open(two.id)).cancel())


async def test_one_device_is_in_one_moot(lan: Any) -> None:
    one, two, three = await lan.found(), await lan.found(), await lan.device()
    await three.network.join(await two.network.invite())
    for settled in (two, three):
        with pytest.raises(AdmissionError, match="leave it first.*folkmoot leave"):
            await settled.network.join(await one.network.invite())


async def test_a_moot_that_nobody_has_joined_is_left_for_another(lan: Any) -> None:
    one, two = await lan.found(), await lan.found()
    own_invitation = await two.network.invite()
    own = two.identity.membership.moot
    with pytest.raises(AdmissionError):
        await two.network.join("folkmoot-rubbish")
    assert two.identity.membership.moot == own, "a failure leaves nothing"
    await two.network.join(await one.network.invite())
    assert two.identity.membership.moot == one.identity.membership.moot
    again = Identity.open(two.identity.home)
    assert again.membership == two.identity.membership
    assert not again.may_invite
    late = await lan.device()
    with pytest.raises(AdmissionError, match="unknown here: withdrawn, or from before a new root key"):
        await late.network.join(own_invitation)


@pytest.mark.parametrize("given", [0, 2])
async def test_invitations_that_become_void_are_told(
    lan: Any, caplog: pytest.LogCaptureFixture, given: int
) -> None:
    one, two = await lan.found(), await lan.found()
    invitations = [await two.network.invite(uses=3) for _ in range(given)]
    two.network._door._identity.invitations.add(b"a" * 16, uses=1, expires_at=5, delegate=False, now=0.0)
    await two.network.join(await one.network.invite())
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [line[:40] for line in said] == ["2 invitation(s) to 'the moot' that this "][:given]
    assert not any(read_invitation(each).secret.hex() in caplog.text for each in invitations)


async def test_an_invitation_for_one_machine_says_so_where_it_fails(lan: Any) -> None:
    one = await lan.found()
    two = await lan.device(dial_s=0.1, join_tries=1)
    invitation = await one.network.invite()
    await one.network.close()
    with pytest.raises(PeerUnreachable, match=r"127.0.0.1 only.*--listen 0.0.0.0:0"):
        await two.network.join(invitation)


def test_the_book_of_invitations_cannot_outgrow_its_file(tmp_path: Path) -> None:
    book = Invitations(tmp_path / "invitations.json", ())
    for number in range(10):
        book.add(number.to_bytes(16, "big"), uses=1_000, expires_at=100, delegate=False, now=0.0)
    with pytest.raises(AdmissionError, match="at most 10000"):
        book.add(b"x" * 16, uses=1, expires_at=100, delegate=False, now=0.0)
    full = tuple(
        replace(each, redeemed=tuple(DeviceId(f"{n:064x}") for n in range(1_000)))
        for each in book._open.values()
    )
    book._store({each.hash: each for each in full})
    assert Invitations.load(tmp_path)._open == book._open


async def test_an_inviter_cannot_grant_what_is_not_its_own(lan: Any) -> None:
    """A false inviter, whose own certificate is not from the moot that the invitation names."""
    one, two = await lan.found(), await lan.device()
    membership = one.identity.membership
    invitation = await one.network.invite()
    one.identity.membership = replace(membership, moot=name(OTHER))
    with pytest.raises(AdmissionError):
        await two.network.join(invitation)
    assert two.identity.membership is None


@pytest.mark.parametrize("sent", [b"", b"x", b"x" * 16, b"x" * 17, b"x" * 100_000])
async def test_strangers_learn_nothing(lan: Any, sent: bytes) -> None:
    one = await lan.found(handshake_s=0.5)
    options = iroh.EndpointOptions(
        preset=iroh.preset_minimal(), bind_addr="127.0.0.1:0", relay_mode=iroh.RelayMode.disabled()
    )
    endpoint = await iroh.Endpoint.bind(options)
    target = iroh.EndpointTicket.from_string(lan.book[one.id]).endpoint_addr()
    connection = await endpoint.connect(target, NEWCOMER)
    stream = await connection.open_bi()
    try:
        await stream.send().write_all(sent)
        await stream.send().finish()
        verdict: Any = await handshake.receive_verdict(stream.recv())
    except (iroh.IrohError, RemoteProtocolError):
        verdict = None
    assert verdict is None or isinstance(verdict, handshake.Refusal)
    connection.close(0, b"")
    await endpoint.close()
    assert not one.identity.invitations.admitted
