"""Attacks on the protocol: a hostile member's messages against the core. Each stands in attacks.toml."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from random import Random

import iroh
import pytest
from tests.core.world import FOUR, Moot, answered, fixed

from folkmoot.core.audit import AuditConfig
from folkmoot.core.events import CardChanged, GossipTimer, PromptFailed, Received
from folkmoot.core.gossip import (
    MAX_INCARNATION,
    MAX_ROWS,
    Card,
    Heartbeat,
    Hot,
    Member,
    News,
    Pulse,
    Rumour,
    Standing,
    Sync,
    SyncReply,
    tag_of,
)
from folkmoot.core.ids import DeviceId, JobId, PromptId, job_id
from folkmoot.core.membership import Membership, MembershipConfig
from folkmoot.core.messages import (
    Answer,
    Ask,
    Inference,
    Outcome,
    Piece,
    Sampling,
    Stage,
    Turn,
    Undone,
    Usage,
)
from folkmoot.core.mixture import MixtureConfig
from folkmoot.core.peer import PeerConfig
from folkmoot.core.price import PriceConfig
from folkmoot.core.repute import ReputeConfig
from folkmoot.core.roster import MAX_PULSE_LEAP
from folkmoot.errors import AdmissionError, LocalProtocolError, RemoteProtocolError
from folkmoot.node.admission import device_of, verify
from folkmoot.node.config import NodeConfig
from folkmoot.node.identity import Identity
from folkmoot.node.seals import CardSeals
from folkmoot.wire import decode, encode

WARY = PeerConfig(mixture=MixtureConfig(fence=True, screen=True), repute=ReputeConfig(enabled=True))
ANN, BOB, CID, DOT, EVE = (DeviceId(name) for name in ("ann", "bob", "cid", "dot", "eve"))
TRUE = "Rayleigh scattering favours short waves"


def prompt_with(moot: Moot, lies: dict[str, str], plan_select: tuple[str, ...] = ()) -> PromptId:
    """One prompt at ann's, to which those in `lies` answer so and all others the truth."""
    prompt = moot.ask("ann", fixed(1, None if plan_select else 3, select=plan_select))
    for name in FOUR:
        if moot.devices[DeviceId(name)].running is not None:
            moot.write(name, lies.get(name, f"{TRUE}, {name} says."))
    moot.work()
    return prompt


def asked(moot: Moot, prompt: PromptId) -> set[str]:
    return {job.device for job in answered(moot, prompt).provenance.jobs}


def knows(*others: DeviceId, me: DeviceId = ANN) -> Membership:
    """A member list that has heard of the others from the first of them, at time 0."""
    it = Membership(me, Card(me, "m", 4096, 1.0, f"at-{me}"), 1, MembershipConfig(), Random(1))
    it.start([], 0.0)
    it.on_message(others[0], SyncReply(tuple(row(each) for each in others)), 0.0)
    return it


def row(
    device: DeviceId, incarnation: int = 1, standing: Standing = Standing.ALIVE, **pulse: float
) -> Member:
    return Member(
        device, incarnation, standing, Card(device, "m", 4096, 1.0, f"at-{device}"), Pulse(1 << 20, **pulse)
    )  # type: ignore[arg-type]


# ---- answers -------------------------------------------------------------------------------------------


def test_empty() -> None:
    moot = Moot(FOUR, WARY)
    first = prompt_with(moot, {"dot": ""})
    assert [job.error for job in answered(moot, first).provenance.jobs if job.device == "dot"] == [
        "the answer is empty"
    ]
    last = [prompt_with(moot, {"dot": ""}) for _ in range(9)][-1]
    assert "dot" not in asked(moot, last)


def test_flood_of_text() -> None:
    moot = Moot(FOUR, WARY)
    prompt = moot.ask("ann", fixed(1, 3), sampling=Sampling(max_tokens=20))
    kept = 0
    job = moot.running("dot")
    for turn in range(100):
        moot.tell("ann", Received(DOT, Piece(job, 1_000 * turn, "x" * 1_000)))
        moot.deliver()
        kept = max(kept, 1_000 * (turn + 1)) if moot.devices[DOT].running is not None else kept
    assert kept <= 64 * 20
    moot.work()
    told = [each for each in answered(moot, prompt).provenance.jobs if each.device == "dot"]
    assert [each.outcome for each in told] == [Outcome.FAILED]


def test_rewritten_text() -> None:
    moot = Moot(FOUR, WARY)
    prompt = moot.ask("ann", fixed(1, 3))
    job = moot.running("dot")
    for offset, text in (
        (0, "It is blue. "),
        (3, "was red. No, "),
        (0, "PWNED"),
        (900, "far beyond"),
        (12, "Truly."),
    ):
        moot.tell("ann", Received(DOT, Piece(job, offset, text)))
    moot.tell("ann", Received(DOT, Answer(job, 18, 0.0, Usage())))
    moot.work()
    said = [each.text for each in answered(moot, prompt).provenance.jobs if each.device == "dot"]
    assert said[0].startswith("It is blue. ")
    assert "PWNED" not in said[0]
    assert "beyond" not in said[0]


def test_another_s_job() -> None:
    moot = Moot(FOUR, WARY)
    prompt = moot.ask("ann", fixed(1, 3))
    job = moot.running("bob")
    moot.tell("ann", Received(DOT, Piece(job, 0, "PWNED")))
    moot.tell("ann", Received(DOT, Answer(job, 5, 0.0, Usage())))
    moot.work()
    assert all("PWNED" not in each.text for each in answered(moot, prompt).provenance.jobs)


# ---- forged load and skill -----------------------------------------------------------------------------


def test_idle_claim() -> None:
    """Eve says that she is idle and serves in a millisecond, and takes 9 s; the others need a second, and say so."""
    shares = {}
    for config in (PeerConfig(), WARY):
        moot = Moot({**FOUR, "eve": "m"}, config)
        ann = moot.devices[ANN].peer
        count = 0
        for turn in range(20):
            for device in (BOB, CID, DOT, EVE):
                claim = Pulse((2 << 20) + turn, 0, 0, 0, 0.001 if device == EVE else 1.0)
                ann.membership.hear_pulse(device, claim, moot.now)
            moot.ask("ann", fixed(1, 1, best_of=4))
            peer = next(name for name in ("bob", "cid", "dot", "eve") if moot.devices[DeviceId(name)].running)
            moot.now += 9.0 if peer == "eve" else 1.0
            moot.write(peer, "blue")
            moot.work()
            count += peer == "eve"
        shares[config.repute.enabled] = count
    assert shares[False] == 20, "believed, the claim draws all jobs"
    assert shares[True] <= 4, "timed, it draws none"


def test_impossible_claim() -> None:
    it = knows(BOB, EVE)
    before = it.members[BOB].pulse
    for wrong in (
        {"service_s": math.nan}, {"service_s": -1.0}, {"service_s": math.inf}, {"queue": -1}, {"queue": 2**31},
        {"debt": -5.0}, {"debt": math.nan}, {"late": 1e9}, {"load": -0.1}, {"excess": 7}, {"version": 2**53},
        {"stages": (1.0,)}, {"stages": (1.0, math.nan, 1.0)}, {"stages": (1.0, -1.0, 1.0)}, {"stages": (1e6, 1.0, 1.0)},
        {"stages": (1.0,) * 4},
    ):  # fmt: skip
        lie = replace(row(BOB, 2), pulse=replace(Pulse(2 << 20), **wrong))  # type: ignore[arg-type]
        it.on_message(EVE, News((), (lie,)), 1.0)
        assert it.members[BOB].pulse == before
        try:
            sent = decode(encode(News((), (lie,))))
        except (LocalProtocolError, RemoteProtocolError):
            continue
        assert sent == News((), (lie,)), "what passes the wire is for the core to refuse"
    for wrong_hot in (
        {"service_ms": 10**9},
        {"queue": -1},
        {"excess": 3},
        {"debt": 10**10},
        {"stages": (1, 1)},
        {"stages": (1, -1, 1)},
        {"stages": (1, 1, 50_001)},
    ):
        hot = replace(Hot(tag_of(BOB), 2 << 20, 1, 0, 0, 1), **wrong_hot)
        it.on_message(EVE, Heartbeat(1, 0, (), (hot,)), 1.0)
        assert it.members[BOB].pulse == before


def test_claim_for_another() -> None:
    """Eve says that bob is full, under a number far above his own; bob hears it and outdoes it."""
    ann, bob = knows(BOB, EVE), knows(ANN, EVE, me=BOB)
    bob.set_pulse(Pulse(queue=1, service_s=1.0), 0.5)
    version = bob.members[BOB].pulse.version
    for lie in (version + 1_000, version + MAX_PULSE_LEAP):
        hot = Hot(tag_of(BOB), lie, 9_999, 1, 0, 1_000)
        for each in (ann, bob):
            each.on_message(EVE, Heartbeat(1, 0, (), (hot,)), 1.0)
        bob.set_pulse(Pulse(queue=2, service_s=1.0), 1.5)
        mine = bob.members[BOB].pulse
        ann.on_message(BOB, Heartbeat(1, 0, (), (Hot(tag_of(BOB), mine.version, 2, 0, 0, 1_000),)), 2.0)
        assert ann.members[BOB].pulse.queue == 2
        version = mine.version
    ann.on_message(EVE, Heartbeat(1, 0, (), (Hot(tag_of(BOB), 2**53 - 1, 9_999, 1, 0, 1_000),)), 3.0)
    assert ann.members[BOB].pulse.queue == 2, "one lie does not push the number to the bound"


def test_made_up_probes() -> None:
    """Dot says that it has all sums right, and has none; hidden questions show it, and another one is the strongest."""
    found = {}
    for audit in (AuditConfig(), AuditConfig(share=0.1, within_s=0.0)):
        moot = Moot(FOUR, PeerConfig(audit=audit))
        ann = moot.devices[ANN].peer
        for device in (ANN, BOB, CID, DOT):
            right = 12 if device == DOT else 2
            card = replace(
                ann.membership.members[device].card,
                skill=1.0,
                probes=7,
                right=(right, *(0,) * 5),
                total=(12, *(0,) * 5),
            )
            if device == ANN:
                moot.tell("ann", CardChanged(card))
            else:
                moot.tell("ann", Received(device, News((), (Member(device, 2, Standing.ALIVE, card),))))
        for _ in range(150):
            prompt = moot.ask("ann", fixed(1, 3, aggregator="strongest"), question="What is 2 + 3?")
            moot.work()
        last = answered(moot, prompt).provenance
        found[audit.share] = (
            last.jobs[-1].device,
            [each.what for each in last.decisions if "believed" in each.what],
        )
    assert found[0.0] == ("dot", [])
    who, told = found[0.1]
    assert who != "dot"
    assert told == ["the card of dot is not believed"]


def test_forged_skill() -> None:
    """Dot claims to be the strongest and aggregates whatever ann asks, falsely; in time it does so no more."""
    moot = Moot(FOUR, WARY)
    ann = moot.devices[ANN].peer.membership
    card = replace(ann.members[DOT].card, skill=1e9)
    moot.tell("ann", Received(DOT, News((), (Member(DOT, 2, Standing.ALIVE, card),))))
    by = []
    for _ in range(20):
        prompt = moot.ask("ann", fixed(1, 3, aggregator="strongest"))
        for _ in range(6):
            for name in FOUR:
                if moot.devices[DeviceId(name)].running is not None:
                    lies = name == "dot"
                    moot.write(
                        name, "Sodium lamps under the ocean floor." if lies else f"{TRUE}, {name} says."
                    )
        by.append(answered(moot, prompt).provenance.jobs[-1].device)
    assert by[0] == "dot"
    assert "dot" not in by[-5:]


def claims_to_be_strongest(peer: PeerConfig) -> Moot:
    """A moot in which Dot claims to be the strongest, by far."""
    moot = Moot(FOUR, peer)
    card = replace(moot.devices[ANN].peer.membership.members[DOT].card, skill=1e9)
    moot.tell("ann", Received(DOT, News((), (Member(DOT, 2, Standing.ALIVE, card),))))
    return moot


def asked_of_dot(moot: Moot, *, stream: bool = False) -> tuple[PromptId, list[JobId]]:
    """Ann's prompt whose answers are there, and what Dot has to do for it: to aggregate, where it is let to."""
    plan = fixed(1, 2, select=("bob", "cid"), aggregator="strongest")
    prompt = moot.ask("ann", plan, stream=stream, sampling=Sampling(max_tokens=20))
    for name in ("ann", "bob", "cid"):
        moot.write(name, f"{TRUE}, {name} says.")
    works = [work for mixture in moot.devices[ANN].peer._mixtures.values() for work in mixture._open.values()]
    return prompt, [work.id for work in works if work.device == DOT]


def test_an_aggregator_s_word_ends_no_prompt() -> None:
    """Dot says each time that the prompt is too long for it: then another one aggregates."""
    moot = claims_to_be_strongest(WARY)
    for _ in range(6):
        prompt, jobs = asked_of_dot(moot)
        for job in jobs:
            moot.tell("ann", Received(DOT, Undone(job, Outcome.REFUSED, "too_long", "no")))
        moot.deliver()
        moot.work()
        assert answered(moot, prompt)


def test_an_aggregator_that_breaks_the_protocol_is_soon_asked_no_more() -> None:
    """Dot floods the user's screen beyond the bound of an answer. First it is asked ever more seldom, then no more."""
    moot = claims_to_be_strongest(replace(NodeConfig().peer, price=PriceConfig()))
    cut: list[bool] = []
    for _ in range(60):
        prompt, jobs = asked_of_dot(moot, stream=True)
        for job in jobs:
            for piece in range(4):
                moot.tell("ann", Received(DOT, Piece(job, 500 * piece, "x" * 500)))
        moot.deliver()
        moot.work()
        cut.append(isinstance(moot.end_of(prompt), PromptFailed))
        moot.pass_time(10.0)
    assert 0 < sum(cut) <= 8
    assert not any(cut[-20:])


KEYS = [iroh.SecretKey.from_bytes(bytes([n]) * 32) for n in (1, 2, 3)]
SIGNERS = [CardSeals(key) for key in KEYS]
THREE = tuple(device_of(key.public().to_bytes()) for key in KEYS)
"""The one that listens, an honest one and the liar, by their keys."""


def signed(place: int, version: int, **card: object) -> Member:
    """The row of one of the three as it tells it itself."""
    plain = replace(row(THREE[place]).card, version=version, **card)
    return Member(THREE[place], version, Standing.ALIVE, replace(plain, seal=SIGNERS[place].seal(plain)))


def listens(*rows: Member) -> Membership:
    it = Membership(THREE[0], Card("ann", "m"), 1, MembershipConfig(), Random(1), SIGNERS[0])
    it.start([], 0.0)
    it.on_message(rows[0].device, SyncReply(rows), 0.0)
    return it


def test_forged_card() -> None:
    honest, liar = signed(1, 1, skill=2.0), signed(2, 1)
    it = listens(honest, liar)
    for number, false in enumerate(
        ({"skill": 0.1}, {"model": ""}, {"address": "nowhere"}, {"total": (9,) * 6, "right": (0,) * 6})
    ):
        claim = replace(
            honest, incarnation=2 + number, card=replace(honest.card, version=2 + number, **false)
        )
        for message in (News((), (claim,)), SyncReply((claim,)), Sync(claim, ())):
            it.on_message(THREE[2], message, 1.0)
            assert it.members[THREE[1]].card == honest.card
    assert it.members[THREE[1]].standing is Standing.ALIVE, "of its life others may tell"
    assert it.forged


def test_replayed_card() -> None:
    old, now, newer = signed(1, 1, skill=9.0), signed(1, 5, skill=1.0), signed(1, 6, skill=0.5)
    it = listens(now, signed(2, 1))
    for number in (5, 6, 7):
        it.on_message(THREE[2], News((), (replace(old, incarnation=number),)), 1.0)
        assert it.members[THREE[1]].card == now.card
    it.on_message(THREE[1], News((), (newer,)), 1.1)
    assert it.members[THREE[1]].card == newer.card


def test_borrowed_card() -> None:
    able, weak = signed(1, 5, skill=9.0), signed(2, 1, skill=0.1)
    it = listens(able, weak)
    under_its_name = replace(able.card, seal=SIGNERS[2].seal(able.card))
    it.on_message(THREE[2], Sync(replace(weak, incarnation=6, card=able.card), ()), 1.0)
    it.on_message(
        THREE[2], News((), (replace(able, incarnation=7, card=replace(under_its_name, skill=0.0)),)), 1.0
    )
    assert it.members[THREE[2]].card == weak.card
    assert it.members[THREE[1]].card == able.card


def test_impossible_skill() -> None:
    it = knows(BOB, EVE)
    for skill in (math.nan, math.inf, -math.inf, 1e10, -1e10):
        lie = replace(row(BOB, 2), card=replace(it.members[BOB].card, skill=skill))
        it.on_message(EVE, News((), (lie,)), 1.0)
        assert it.members[BOB].card.skill == 1.0
        with pytest.raises((LocalProtocolError, RemoteProtocolError)):
            decode(encode(News((), (lie,))))


# ---- floods and Sybils ---------------------------------------------------------------------------------


def test_invented_members() -> None:
    """Twenty thousand devices that are not there, then the same under ever higher numbers; the living stay, and may come."""
    it = knows(BOB, CID, DOT, EVE)
    config = MembershipConfig()
    for turn in range(40):
        ghosts = tuple(
            row(DeviceId(f"ghost{number}"), 1 + turn % 2) for number in range(500 * turn, 500 * turn + 500)
        )
        it.on_message(EVE, SyncReply(ghosts), 1.0)
    assert it.devices <= 5 + config.strangers + 2 * 5
    assert len(it.members) < config.max_members // 2
    late = DeviceId("late")
    it.on_message(late, Sync(row(late), ()), 2.0)
    assert late in it.members, "an honest newcomer finds room"


def test_rumour_flood() -> None:
    it = knows(BOB, EVE)
    out = 0
    for turn in range(50):
        rumours = tuple(Rumour(DeviceId(f"r{turn}-{n}"), 1, Standing.ALIVE, n) for n in range(MAX_ROWS))
        out += len(it.on_message(EVE, News(rumours), 1.0 + turn / 100))
    assert out < 10, "it asks back once a second at most"
    assert len(it.members) == 3
    it.on_message(EVE, News(tuple(Rumour(BOB, 1, Standing.ALIVE, 0) for _ in range(MAX_ROWS + 1))), 2.0)
    assert it.ignored == 1


def test_job_flood() -> None:
    moot = Moot(FOUR, WARY)
    bob = moot.devices[BOB].peer
    for number in range(10_000):
        job = job_id(PromptId(f"{number:032x}"), 1, 1, 0)
        ask = Ask(
            job, PromptId(f"{number:032x}"), 1, Stage.PROPOSE, Inference(PromptId("p"), (Turn("user", "x"),))
        )
        moot.tell("bob", Received(EVE, ask))
    assert bob.queue.waiting <= bob.queue.config.max_waiting // 2 + 1
    prompt = moot.ask("ann", fixed(1, 3))
    moot.mail.clear()
    for name in ("ann", "cid", "dot"):
        moot.write(name, "blue")
    assert any(key[0] == ANN for key in bob.queue._jobs), "another device's job found room"
    assert prompt in moot.devices[ANN].peer.prompts


def test_one_key_two_devices(tmp_path: object) -> None:
    """A device is its key: a certificate serves no other, and nobody speaks in another's name."""
    founder = Identity.open(tmp_path)  # type: ignore[arg-type]
    founder.found("a moot", time.time())
    assert founder.membership is not None
    certificate = founder.membership.certificate
    verify(certificate, founder.membership.moot, founder.device)
    last = "00" if founder.device[-2:] != "00" else "01"
    for other in (DeviceId("ab" * 32), DeviceId(founder.device[:-2] + last)):
        with pytest.raises(AdmissionError):
            verify(certificate, founder.membership.moot, other)
        with pytest.raises(AdmissionError):
            verify(replace(certificate, member=other), founder.membership.moot, other)
    it = knows(BOB, EVE)
    it.on_message(EVE, Sync(replace(row(BOB, 9), card=Card("forged", "m")), ()), 1.0)
    assert it.members[BOB].card.name == "bob"


# ---- stale membership ----------------------------------------------------------------------------------


@pytest.mark.parametrize("standing", [Standing.DEAD, Standing.LEFT])
def test_slander(standing: Standing) -> None:
    ann, bob = knows(BOB, EVE), knows(ANN, EVE, me=BOB)
    lie = News((Rumour(BOB, 1, standing, 0),))
    ann.on_message(EVE, lie, 1.0)
    if ann.members[BOB].standing > Standing.SUSPECT:
        told = [e.message for e in ann.on_message(BOB, Heartbeat(1, 0), 1.1) if getattr(e, "to", None) == BOB]
        assert told, "whoever is held dead and speaks is told so"
        for message in told:
            bob.on_message(ANN, message, 1.2)
        ann.on_message(BOB, News((), (bob.members[BOB],)), 1.3)
    assert ann.members[BOB].standing <= Standing.SUSPECT


def test_old_row() -> None:
    it = knows(BOB, CID, EVE)
    it.on_message(CID, News((Rumour(BOB, 1, Standing.DEAD, 0),)), 1.0)
    for turn in range(500):
        it.on_timer(GossipTimer("tick"), 1.0 + turn / 100)
    assert it.members[BOB].standing is Standing.DEAD
    for message in (
        News((), (row(BOB),)),
        SyncReply((row(BOB),)),
        Sync(row(EVE), (Rumour(BOB, 1, Standing.ALIVE, 0),)),
    ):
        it.on_message(EVE, message, 7.0)
        assert it.members[BOB].standing is Standing.DEAD
    assert BOB not in [each.device for each in it.live()]


def test_number_at_the_bound() -> None:
    ann, bob = knows(BOB, EVE), knows(ANN, EVE, me=BOB)
    for each in (ann, bob):
        each.on_message(EVE, News((Rumour(BOB, MAX_INCARNATION - 1, Standing.DEAD, 0),)), 1.0)
    assert ann.members[BOB].incarnation < MAX_INCARNATION - 1
    assert bob.members[BOB].standing is Standing.ALIVE
    ann.on_message(BOB, News((), (bob.members[BOB],)), 2.0)
    assert ann.members[BOB].standing is Standing.ALIVE
