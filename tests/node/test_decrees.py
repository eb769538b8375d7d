"""Decrees by themselves: who may sign them, what they add up to, what an old or forged one does."""

from __future__ import annotations

import contextlib
import stat
from pathlib import Path

import iroh
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, NodeError, RemoteProtocolError
from folkmoot.node import decrees, storage
from folkmoot.node.admission import device_of, issue
from folkmoot.node.decrees import Decrees, ban, from_bytes, rotation, to_bytes
from folkmoot.node.identity import Identity, Membership

ANN, BOB = DeviceId("a" * 64), DeviceId("b" * 64)


def root_of(key: iroh.SecretKey) -> str:
    return device_of(key.public().to_bytes())


@pytest.fixture
def roots() -> list[iroh.SecretKey]:
    return [iroh.SecretKey.generate() for _ in range(4)]


@pytest.fixture
def known(tmp_path: Path) -> Decrees:
    return Decrees(tmp_path / "decrees.json", ())


def test_what_was_written_is_read_and_a_changed_byte_is_noticed(roots: list[iroh.SecretKey]) -> None:
    for decree in (ban(roots[0], ANN, 5), rotation(roots[0], roots[1], BOB, 9)):
        data = to_bytes(decree)
        assert len(data) <= decrees.DECREE_BYTES
        assert from_bytes(data) == decree
        for place in range(len(data)):
            changed = bytearray(data)
            changed[place] ^= 1
            with pytest.raises(RemoteProtocolError):
                from_bytes(bytes(changed))
            with pytest.raises(RemoteProtocolError):
                from_bytes(data[:place])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=512))
def test_random_bytes_are_no_decree(data: bytes) -> None:
    for read in (from_bytes, lambda some: [from_bytes(each) for each in decrees.unpack(some, 8)]):
        try:
            assert read(data) == []
        except RemoteProtocolError:
            continue


def test_a_ban_counts_from_the_newest_root_alone(known: Decrees, roots: list[iroh.SecretKey]) -> None:
    first, second, stranger, _ = roots
    moot = root_of(first)
    assert known.believes(ban(first, ANN, 1), moot)
    assert not known.believes(ban(stranger, ANN, 1), moot)
    assert known.add(rotation(first, second, BOB, 100))
    assert not known.believes(ban(first, ANN, 1), moot)
    assert known.believes(ban(second, ANN, 1), moot)
    assert known.believes(ban(second, ANN, 1), root_of(second))


def test_roots_follow_each_other_and_end_with_their_grace(
    known: Decrees, roots: list[iroh.SecretKey]
) -> None:
    names = [root_of(key) for key in roots]
    for step, until in ((0, 100), (1, 200)):
        decree = rotation(roots[step], roots[step + 1], BOB, until)
        assert known.believes(decree, names[0])
        assert known.add(decree)
        assert not known.add(decree)
    assert known.head(names[0]) == names[2]
    for moot in names[:3]:
        assert known.roots(moot, 50.0) == (names[2], names[1], names[0])
        assert known.roots(moot, 150.0) == (names[2], names[1])
        assert known.roots(moot, 250.0) == (names[2],)
    # The first successor that was heard of stays: a stolen old key cannot name another.
    second = rotation(roots[0], roots[3], ANN, 999)
    assert not known.believes(second, names[0])
    assert not known.add(second)


def test_nobody_makes_up_a_root_that_came_before(known: Decrees, roots: list[iroh.SecretKey]) -> None:
    first, fake, *_ = roots
    real = rotation(fake, first, BOB, 100)
    made_up = decrees.Rotation(real.old, real.new, real.founder, real.until, real.signature, real.signature)
    assert known.believes(real, root_of(first)), "the newer root has signed it too"
    with pytest.raises(RemoteProtocolError):
        from_bytes(to_bytes(made_up))


def test_they_outlive_a_restart_and_a_damaged_file_is_no_pardon(
    known: Decrees, roots: list[iroh.SecretKey], tmp_path: Path
) -> None:
    for decree in (rotation(roots[0], roots[1], BOB, 9), ban(roots[1], ANN, 5)):
        known.add(decree)
    known.save()
    path = tmp_path / "decrees.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Decrees.load(tmp_path)
    assert again.all() == known.all()
    assert again.is_banned(ANN)
    path.write_text(path.read_text().replace('"', '"0', 3))
    with pytest.raises(NodeError, match="damaged"):
        Decrees.load(tmp_path)


# ---- the founder ---------------------------------------------------------------------------------------


@pytest.fixture
def founder(tmp_path: Path) -> Identity:
    identity = Identity.open(tmp_path / "founder")
    identity.found("the moot", 1.0)
    return identity


def member_of(founder: Identity, home: Path, *, may_invite: bool = False) -> Identity:
    identity = Identity.open(home)
    assert founder.membership is not None
    certificate = founder.certify(identity.device, may_invite=may_invite, now=1.0)
    identity.adopt(Membership(founder.membership.moot, "the moot", certificate))
    return identity


def test_only_the_founder_bans_and_changes_the_key(founder: Identity, tmp_path: Path) -> None:
    member = member_of(founder, tmp_path / "member", may_invite=True)
    for refused in (
        lambda: member.ban(founder.device, 1.0),
        lambda: member.rotate(1.0, 60.0),
        lambda: founder.ban(founder.device, 1.0),
        lambda: founder.rotate(1.0, 0.0),
        lambda: founder.rotate(1.0, 1e12),
    ):
        with pytest.raises(AdmissionError):
            refused()
    founder.ban(member.device, 1.0)
    with pytest.raises(AdmissionError, match="already"):
        founder.ban(member.device, 2.0)


def test_a_banned_device_is_out_with_all_that_it_has_let_in_and_gets_no_certificate(
    founder: Identity, tmp_path: Path
) -> None:
    delegate = member_of(founder, tmp_path / "delegate", may_invite=True)
    let_in = delegate.certify(ANN, may_invite=False, now=1.0)
    founder.check(let_in, ANN, 2.0)
    founder.ban(delegate.device, 2.0)
    assert delegate.membership is not None
    for certificate, device in ((delegate.membership.certificate, delegate.device), (let_in, ANN)):
        with pytest.raises(AdmissionError, match="banned"):
            founder.check(certificate, device, 2.0)
    with pytest.raises(AdmissionError, match="banned"):
        founder.certify(delegate.device, may_invite=False, now=2.0)


def test_a_new_key_keeps_bans_voids_invitations_and_forgets_the_old_one(
    founder: Identity, tmp_path: Path
) -> None:
    assert founder.membership is not None
    old = founder.membership.moot
    founder.invitations.add(b"x" * 16, uses=1, expires_at=99, delegate=False, now=1.0)
    founder.ban(BOB, 1.0)
    before = (founder.home / "root.json").read_text()
    step = founder.rotate(10.0, 50.0)
    assert founder.founder
    assert founder.membership.moot == step.new != old
    assert founder.invitations.usable(1.0) == 0
    assert not (founder.home / "root-next.json").exists()
    assert (founder.home / "root.json").read_text() != before
    again = Identity.open(founder.home)
    assert again.founder
    assert again.membership == founder.membership
    assert again.decrees.is_banned(BOB)
    assert again.decrees.roots(step.new, 20.0) == (step.new, old)
    assert again.decrees.roots(step.new, 61.0) == (step.new,)


@pytest.mark.parametrize("writes", range(6))
def test_a_crash_at_any_write_of_a_rotation_leaves_a_founder(
    founder: Identity, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    """After the restart the moot has the old root or the new one, and this device holds its key."""

    class Crash(Exception):
        pass

    left = writes

    def dying(real):  # type: ignore[no-untyped-def]
        def write(*arguments: object) -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            real(*arguments)

        return write

    with monkeypatch.context() as patch:
        for name in ("save", "move", "remove"):
            patch.setattr(storage, name, dying(getattr(storage, name)))
        try:
            founder.rotate(10.0, 50.0)
        except Crash:
            pass
    again = Identity.open(founder.home)
    assert again.founder
    assert again.membership is not None
    assert again.check(again.membership.certificate, again.device, 20.0) == again.membership.moot
    assert again.membership.moot == again.decrees.head(again.membership.moot)
    assert not (again.home / "root-next.json").exists()
    certificate = issue(again._root, again.membership.moot, ANN, may_invite=False, issued_at=11)  # type: ignore[arg-type]
    again.check(certificate, ANN, 20.0)


def test_no_ban_is_lifted_while_another_one_is_undone(known: Decrees, roots: list[iroh.SecretKey]) -> None:
    """Connections are let in meanwhile: the bans change by one step, and are never taken apart."""
    known.add(ban(roots[0], BOB, 1))
    during = known._bans

    def fail() -> None:
        with known.kept():
            known.add(ban(roots[0], ANN, 2))
            raise NodeError("the disk is full")

    with pytest.raises(NodeError):
        fail()
    assert set(during) == {ANN, BOB}
    assert known.banned() == (BOB,)
    assert not known.knows(to_bytes(ban(roots[0], ANN, 2)))


@pytest.mark.parametrize("writes", range(5))
def test_a_full_disk_undoes_a_decree_and_the_next_try_succeeds(
    founder: Identity, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    left = writes
    save = storage.save

    def full(path: Path, value: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise NodeError("cannot write: no space left on device")
        save(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "save", full)
        for attempt in (lambda: founder.ban(BOB, 5.0), lambda: founder.rotate(10.0, 50.0)):
            with contextlib.suppress(NodeError):
                attempt()
    assert founder.founder
    if not founder.decrees.is_banned(BOB):
        founder.ban(BOB, 6.0)
    founder.rotate(11.0, 50.0)
    again = Identity.open(founder.home)
    assert again.founder
    assert again.decrees.is_banned(BOB)
    assert again.membership == founder.membership
    assert again.membership is not None
    assert again.decrees.head(again.membership.moot) == again.membership.moot
