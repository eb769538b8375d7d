"""Bans and new root keys between real devices on loopback."""

from __future__ import annotations

from typing import Any

import iroh
import pytest

from folkmoot.core.ids import DeviceId, JobId
from folkmoot.core.messages import Cancel
from folkmoot.errors import AdmissionError
from folkmoot.node import decrees
from folkmoot.node.council import DECREES, GRANTED, MINE, RENEW
from folkmoot.node.decrees import Ban
from folkmoot.node.identity import Identity
from folkmoot.node.link import PeerUnreachable


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


async def linked(one: Any, other: Any) -> Any:
    """A stream from one to the other, on which there was an answer."""
    stream = await one.network.open(other.id)
    await stream.send(Cancel(JobId("job")))
    assert await anext(stream) == Cancel(JobId("job"))
    return stream


async def refused(one: Any, other: Any) -> None:
    with pytest.raises(PeerUnreachable):
        await linked(one, other)


def control(device: Any, data: bytes, to: Any) -> Any:
    """Let a device say something about the membership to another."""

    async def say() -> None:
        stream = await device.network._links[to.id].connection.open_uni()
        await stream.write_all(data)
        await stream.finish()

    return say()


async def test_a_ban_reaches_those_whom_the_founder_does_not_know_and_outlives_a_restart(lan: Any) -> None:
    founder = await lan.found()
    near, far, bad = [await lan.member() for _ in range(3)]
    for one, other in ((founder, near), (near, far), (far, bad)):
        await linked(one, other)
    await founder.network.council.ban(bad.id)
    await lan.until(lambda: far.identity.decrees.is_banned(bad.id))
    await lan.until(lambda: bad.id not in far.network.linked())
    for device in (founder, near, far):
        await refused(bad, device)
        await refused(device, bad)
    await lan.until(lambda: (far.identity.home / "decrees.json").exists())
    home = far.identity.home
    await lan.until(lambda: Identity.open(home).decrees.is_banned(bad.id))
    await far.network.close()
    lan.devices.remove(far)
    again = await lan.device(Identity.open(home))
    await refused(bad, again)
    await linked(again, near)


async def test_a_banned_device_is_told_so_once_and_nobody_else_is(
    lan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    founder = await lan.found()
    near, bad = await lan.member(), await lan.member()
    for one, other in ((bad, founder), (bad, near), (near, founder)):
        await linked(one, other)
    await founder.network.council.ban(bad.id)
    await lan.until(lambda: bad.id not in near.network.linked())
    for device in (founder, near):
        await refused(bad, device)
    stranger = await lan.device()
    stranger.identity.found("another moot", 1.0)
    await refused(stranger, founder)
    told = [record.getMessage() for record in caplog.records]
    assert len([text for text in told if "says that this device is banned" in text]) == 1


async def test_a_ban_is_told_once_though_each_new_root_key_signs_it_anew(
    lan: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("WARNING")
    founder = await lan.found()
    near = await lan.member()
    await linked(founder, near)
    bad = lan.enrol(lan.identity()).device
    await founder.network.council.ban(bad)
    await lan.until(lambda: near.identity.decrees.is_banned(bad))
    await founder.network.council.rotate(3_600.0)
    new = founder.identity.membership.moot
    await lan.until(
        lambda: new in [each.moot for each in near.identity.decrees.all() if isinstance(each, Ban)]
    )
    told = [record.getMessage() for record in caplog.records if "is banned" in record.getMessage()]
    assert told == [f"{bad[:8]} is banned from the moot"] * 2, "once on each of the two devices"


async def test_a_second_ban_of_a_device_says_that_it_is_banned(
    lan: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    founder = await lan.found()
    one, other = (lan.enrol(lan.identity()).device for _ in range(2))
    await founder.network.council.ban(one)
    with pytest.raises(AdmissionError, match="is banned already"):
        await founder.network.council.ban(one)
    monkeypatch.setattr("folkmoot.node.decrees.MAX_BANS", 1)
    with pytest.raises(AdmissionError, match="devices are banned, which is the bound"):
        await founder.network.council.ban(other)


async def test_who_was_away_when_it_was_said_hears_of_it_from_the_first_member_that_it_meets(
    lan: Any,
) -> None:
    founder = await lan.found()
    bad, late, other = lan.enrol(lan.identity()), lan.enrol(lan.identity()), await lan.member()
    await linked(founder, other)
    await founder.network.council.ban(bad.device)
    await lan.until(lambda: other.identity.decrees.is_banned(bad.device))
    late = await lan.device(late)
    await linked(late, other)
    await lan.until(lambda: late.identity.decrees.is_banned(bad.device))


@pytest.mark.parametrize("forged", ["by a member", "by another moot", "rubbish", "too many kinds"])
async def test_nobody_but_the_founder_bans(lan: Any, forged: str) -> None:
    founder = await lan.found()
    liar, other = await lan.member(), await lan.member()
    await linked(liar, other)
    key = liar.identity.key if forged == "by a member" else iroh.SecretKey.generate()
    decree = decrees.ban(key, founder.id, 5)
    await control(liar, {
        "rubbish": DECREES + b"rubbish", "too many kinds": b"\x09",
    }.get(forged, DECREES + decrees.pack([decree])), other)  # fmt: skip
    if forged in ("rubbish", "too many kinds"):
        await lan.until(lambda: liar.id not in other.network.linked())
    else:
        await linked(liar, other)
    assert not other.identity.decrees.banned()
    await linked(other, founder)


async def test_a_new_root_key_reaches_everybody_while_streams_go_on(lan: Any) -> None:
    clock = Clock()
    founder = await lan.found(now=clock)
    near, far = await lan.member(now=clock), await lan.member(now=clock, may_invite=True)
    away, gone = (lan.enrol(lan.identity()) for _ in range(2))
    talks = [await linked(*pair) for pair in ((founder, near), (near, far), (far, founder))]
    old = founder.identity.membership.moot
    until = (await founder.network.council.rotate(3_600.0)).until
    new = founder.identity.membership.moot
    assert new != old
    for device in (near, far):
        await lan.until(lambda d=device: d.identity.membership.moot == new)
    assert far.identity.may_invite
    assert not near.identity.may_invite
    await lan.until(
        lambda: all(link.root == new for d in (founder, near, far) for link in d.network._all_links())
    )
    # Who was away comes back under the old key, meets a member that has the new one, and gets its own.
    back = await lan.device(away, now=clock)
    await linked(back, near)
    await lan.until(lambda: back.identity.membership.moot == new)
    clock.now = until + 1.0
    late = await lan.device(gone, now=clock)
    for device in (founder, near, far, back):
        await refused(late, device)
        await refused(device, late)
    for stream in talks:
        await stream.send(Cancel(JobId("again")))
        assert await anext(stream) == Cancel(JobId("again"))
    await linked(back, far)
    assert Identity.open(near.identity.home).membership == near.identity.membership


async def test_a_member_without_a_new_certificate_is_cut_off_when_the_grace_ends(lan: Any) -> None:
    clock = Clock()
    founder, deaf = await lan.found(now=clock), await lan.member(now=clock)
    await linked(founder, deaf)
    deaf.network.council._asked_at = float("inf")
    step = founder.identity.rotate(clock(), 60.0)
    assert deaf.id in founder.network.linked()
    clock.now = step.until + 1.0
    await lan.until(lambda: deaf.id not in founder.network.linked())


async def test_a_newcomer_of_the_new_key_joins_and_meets_those_of_the_old_one(lan: Any) -> None:
    clock = Clock()
    founder = await lan.found(now=clock)
    old = await lan.member(now=clock)
    await founder.network.council.rotate(3_600.0)
    newcomer = await lan.device(now=clock)
    await newcomer.network.join(await founder.network.invite())
    # It has heard of no rotation yet, and the other of no new root: the hello tells.
    await linked(newcomer, founder)
    await linked(old, newcomer)


async def test_a_banned_device_is_neither_renewed_nor_let_in_again(lan: Any) -> None:
    founder = await lan.found()
    bad = await lan.member()
    await founder.network.council.ban(bad.id)
    await founder.network.council.rotate(60.0)
    assert founder.identity.decrees.is_banned(bad.id)
    fresh = await lan.device(bad.identity, now=Clock())
    bad.identity.leave()
    with pytest.raises(Exception, match="banned"):
        await fresh.network.join(await founder.network.invite())


# ---- sent again ----------------------------------------------------------------------------------------


async def test_decrees_and_certificates_that_are_sent_again_change_nothing(lan: Any) -> None:
    founder = await lan.found()
    member, other = await lan.member(), await lan.member()
    await linked(member, other)
    await linked(founder, other)
    first = member.identity.membership.certificate.to_bytes()
    await founder.network.council.ban(DeviceId("d" * 64))
    old_ban = decrees.pack(founder.identity.decrees.all())
    await founder.network.council.rotate(3_600.0)
    new = founder.identity.membership.moot
    await lan.until(lambda: other.identity.membership.moot == new)
    await lan.until(lambda: member.identity.membership.moot == new)
    before = other.identity.decrees.all()
    for data in (
        DECREES + old_ban,
        DECREES + decrees.pack(before),
        GRANTED + first,
        GRANTED + member.identity.membership.certificate.to_bytes(),
        MINE + founder.identity.membership.certificate.to_bytes(),
        RENEW,
    ):
        await control(member, data, other)
    await linked(member, other)
    await linked(other, founder)
    assert other.identity.decrees.all() == before
    assert other.identity.membership.certificate.member == other.id
    assert other.identity.membership.moot == new


async def test_who_says_too_much_about_the_membership_is_cut_off(lan: Any) -> None:
    await lan.found()
    loud, other = await lan.member(), await lan.member()
    await linked(loud, other)
    try:
        for _ in range(200):
            await control(loud, RENEW, other)
    except (iroh.IrohError, KeyError):
        pass
    await lan.until(lambda: loud.id not in other.network.linked())
