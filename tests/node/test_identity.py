"""Keys, memberships and memories survive restarts, crashes and full disks; damage is named."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from folkmoot.core.ids import DeviceId
from folkmoot.errors import AdmissionError, NodeError
from folkmoot.node import storage
from folkmoot.node.identity import Identity
from folkmoot.node.invitations import Invitations, Open
from folkmoot.node.memory import MAX_PEERS, Memory

SECRET = bytes(range(16))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_the_first_start_makes_a_private_key_that_stays(home: Path) -> None:
    first = Identity.open(home)
    assert Identity.open(home).device == first.device
    assert len(first.device) == 64
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert stat.S_IMODE((home / "device.json").stat().st_mode) == 0o600
    assert first.membership is None
    assert not first.may_invite


def test_a_founder_stays_one(home: Path) -> None:
    founded = Identity.open(home).found("our moot", 1_000.0)
    again = Identity.open(home)
    assert again.membership == founded
    assert again.founder
    assert again.may_invite
    assert founded.name == "our moot"
    with pytest.raises(AdmissionError, match="already"):
        again.found("another", 1_000.0)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in home.iterdir())


def test_secrets_are_in_no_repr(home: Path) -> None:
    identity = Identity.open(home)
    identity.found("m", 1.0)
    assert identity.key.to_bytes().hex() not in repr(identity) + repr(identity.membership)


@pytest.mark.parametrize("file", ["device.json", "moot.json", "root.json", "invitations.json", "memory.json"])
def test_files_that_others_can_read_are_refused_with_the_remedy(home: Path, file: str) -> None:
    make_all(home)
    (home / file).chmod(0o640)
    with pytest.raises(NodeError, match=f"chmod 600 .*{file}"):
        open_all(home)


def test_a_home_that_others_can_read_is_refused_with_the_remedy(home: Path) -> None:
    make_all(home)
    home.chmod(0o755)
    with pytest.raises(NodeError, match="chmod 700"):
        open_all(home)


@pytest.mark.parametrize("damage", [b"", b"{", b"null", b"\xff\xfe", b'{"version":1}', b" " * (2 << 20)])
@pytest.mark.parametrize("file", ["device.json", "moot.json", "root.json", "invitations.json"])
def test_damage_is_named_with_a_remedy(home: Path, file: str, damage: bytes) -> None:
    make_all(home)
    (home / file).write_bytes(damage)
    with pytest.raises(NodeError, match=f"{file} .*damaged.*(restore|delete)"):
        open_all(home)


def test_a_single_wrong_digit_does_not_make_another_device(home: Path) -> None:
    make_all(home)
    path = home / "device.json"
    text = path.read_text()
    place = text.index('"secret"') + 14
    path.write_text(text[:place] + ("0" if text[place] != "0" else "1") + text[place + 1 :])
    with pytest.raises(NodeError, match="do not match"):
        open_all(home)


def test_a_lost_key_is_not_replaced_in_silence(home: Path) -> None:
    make_all(home)
    (home / "device.json").unlink()
    with pytest.raises(NodeError, match="restore the key"):
        Identity.open(home)


def test_a_membership_of_another_device_is_refused(home: Path, tmp_path: Path) -> None:
    make_all(home)
    other = Identity.open(tmp_path / "other")
    (other.home / "moot.json").write_bytes((home / "moot.json").read_bytes())
    (other.home / "moot.json").chmod(0o600)
    with pytest.raises(NodeError, match="does not make this device a member"):
        Identity.open(other.home)


def test_leaving_forgets_the_moot_and_keeps_the_root_key_aside(home: Path) -> None:
    make_all(home)
    identity = Identity.open(home)
    identity.leave()
    again = Identity.open(home)
    assert again.membership is None
    assert not again.may_invite
    assert len(list(home.glob("root-*.json"))) == 1
    assert again.found("next", 1.0).moot != identity.device


def test_founding_goes_on_after_a_crash_between_its_two_files(home: Path) -> None:
    moot = Identity.open(home).found("m", 1.0).moot
    (home / "moot.json").unlink()
    assert Identity.open(home).found("m", 1.0).moot == moot


def test_a_full_disk_loses_nothing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_all(home)
    before = {file.name: file.read_bytes() for file in home.iterdir()}

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    identity, memory = Identity.open(home), Memory.load(home)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NodeError, match="No space left"):
        identity.invitations.add(b"x" * 16, uses=1, expires_at=9, delegate=False, now=0.0)
    with pytest.raises(NodeError, match="No space left"):
        identity.invitations.redeem_all([(SECRET, identity.device)], 1.0)
    with pytest.raises(NodeError, match="kept"):
        memory.next_incarnation(5e9)
    assert {file.name: file.read_bytes() for file in home.iterdir()} == before
    monkeypatch.undo()
    # What could not be recorded has not happened.
    (entry,) = identity.invitations.redeem_all([(SECRET, DeviceId("ab" * 32))], 1.0)
    assert isinstance(entry, Open)
    assert entry.redeemed == ("ab" * 32,)


def test_a_home_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NodeError, match="FOLKMOOT_HOME"):
        storage.prepare_home(tmp_path / "file" / "home")


# ---- memory ----------------------------------------------------------------------------------------


def test_the_incarnation_rises_with_every_start(home: Path) -> None:
    storage.prepare_home(home)
    assert Memory.load(home).next_incarnation(100.0) == 100
    assert Memory.load(home).next_incarnation(100.9) == 101
    assert Memory.load(home).next_incarnation(50.0) == 102
    (home / "memory.json").unlink()
    assert Memory.load(home).next_incarnation(200.0) == 200


def test_peers_are_remembered_newest_first_and_bounded(home: Path) -> None:
    storage.prepare_home(home)
    memory = Memory.load(home)
    devices = [DeviceId(f"{number:064x}") for number in range(MAX_PEERS + 10)]
    for device in devices:
        assert memory.remember(device, f"address of {device}")
    assert not memory.remember(devices[20], f"address of {devices[20]}")
    assert not memory.remember(devices[21], "x" * 513)
    memory.forget(devices[-1])
    memory.save()
    again = Memory.load(home)
    assert again.contacts() == memory.contacts()
    assert len(again.contacts()) == MAX_PEERS - 1
    assert again.contacts()[0][0] == devices[20]
    assert again.address_of(devices[0]) is None
    assert again.address_of(devices[30]) == f"address of {devices[30]}"


@pytest.mark.parametrize("damage", [b"", b"[]", b'{"version":1,"incarnation":-5,"port":0,"peers":[]}'])
def test_a_damaged_memory_is_set_aside(home: Path, damage: bytes) -> None:
    storage.prepare_home(home)
    storage.save(home / "memory.json", {})
    (home / "memory.json").write_bytes(damage)
    memory = Memory.load(home)
    assert memory.contacts() == ()
    assert memory.next_incarnation(7.0) == 7
    assert Memory.load(home).incarnation == 7


# ---- helpers ---------------------------------------------------------------------------------------


def make_all(home: Path) -> None:
    identity = Identity.open(home)
    identity.found("m", 1.0)
    identity.invitations.add(SECRET, uses=1, expires_at=100, delegate=False, now=0.0)
    Memory.load(home).save()


def open_all(home: Path) -> tuple[Any, ...]:
    identity = Identity.open(home)
    return identity, Memory.load(home), Invitations.load(home)
