"""An answer on its way: pieces in any order, with gaps, overlaps and doubles; and who may speak at all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.core.world import Moot

from folkmoot.core.events import Announce, AnswerText, Effect, Plan, PromptAnswered, Received, Send, Warm
from folkmoot.core.ids import DeviceId, JobId, prompt_of
from folkmoot.core.messages import (
    Answer,
    Began,
    Message,
    Outcome,
    Piece,
    Poll,
    Prepare,
    Queued,
    Stage,
    Undone,
    Usage,
)

ANN, BOB, CID = DeviceId("ann"), DeviceId("bob"), DeviceId("cid")
TEXT = st.text(min_size=1, max_size=30)


def sent(effects: list[Effect], kind: type) -> list[Message]:
    return [e.message for e in effects if isinstance(e, Send) and isinstance(e.message, kind)]


def job_at(moot: Moot, name: DeviceId) -> JobId:
    running = moot.devices[name].running
    assert running is not None
    return running[0]


@st.composite
def torn(draw: st.DrawFn) -> tuple[str, list[tuple[int, int]]]:
    """A text and spans of it, in any order, which need not cover it."""
    text = draw(TEXT)
    place = st.integers(0, len(text))
    return text, draw(st.lists(st.tuples(place, place).map(lambda ab: (min(ab), max(ab))), max_size=12))


@settings(deadline=None, max_examples=300)
@given(torn(), st.integers(0, 12))
def test_pieces_make_the_text_whatever_order_they_come_in(
    case: tuple[str, list[tuple[int, int]]], end: int
) -> None:
    """Only `Answer` makes it whole, and while something is missing it is asked for from where the gap begins."""
    text, spans = case
    moot = Moot({"ann": "m", "bob": "m"})
    moot.ask("ann", Plan("fixed", 1, 1))
    job = job_at(moot, BOB)
    answer = Answer(job, len(text), 0.0, Usage())
    messages: list[Message] = [Piece(job, a, text[a:b]) for a, b in spans]
    messages.insert(min(end, len(messages)), answer)
    have, whole = 0, False
    for message in messages:
        effects = moot.tell("ann", Received(BOB, message))
        if whole:
            assert effects == [], "it was whole already"
            continue
        if isinstance(message, Piece) and message.offset <= have:
            have = max(have, message.offset + len(message.text))
        polls = sent(effects, Poll)
        if isinstance(message, Answer):
            assert polls == ([] if have == len(text) else [Poll(job, have)])
            whole = have == len(text)
        else:
            assert polls == []
    if not whole:
        moot.tell("ann", Received(BOB, Piece(job, have, text[have:])))
        moot.tell("ann", Received(BOB, answer))
    moot.write("ann", "mine")
    running = moot.devices[ANN].running
    assert running is not None
    assert running[1].answers == ((text, "mine") if text.strip() else ("mine",))


@settings(deadline=None, max_examples=200)
@given(torn())
def test_streamed_words_are_shown_once_each_and_in_order(case: tuple[str, list[tuple[int, int]]]) -> None:
    text, spans = case
    moot = Moot({"ann": "m", "bob": "m"})
    prompt = moot.ask("ann", Plan("fixed", 1, 1, aggregator="fixed:bob"), stream=True)
    moot.write("ann")
    moot.write("bob")
    job = job_at(moot, BOB)
    for a, b in [*spans, (0, len(text))]:
        moot.tell("ann", Received(BOB, Piece(job, a, text[a:b])))
    moot.tell("ann", Received(BOB, Answer(job, len(text), 0.0, Usage())))
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered)
    notices = moot.devices[ANN].notices
    assert end.answer == text == "".join(n.text for n in notices if isinstance(n, AnswerText))


def anything_about(job: JobId) -> st.SearchStrategy[Message]:
    return st.one_of(
        st.builds(Queued, st.just(job), st.integers(0, 9)),
        st.builds(Began, st.just(job), st.floats(0, 9)),
        st.builds(Piece, st.just(job), st.integers(0, 9), TEXT),
        st.builds(Answer, st.just(job), st.integers(0, 9), st.floats(0, 9), st.just(Usage())),
        st.builds(Undone, st.just(job), st.sampled_from(Outcome), TEXT, TEXT),
    )


@settings(deadline=None, max_examples=150)
@given(data=st.data(), layers=st.integers(1, 2), stage=st.sampled_from(Stage))
def test_who_was_not_asked_is_not_heard(data: st.DataObject, layers: int, stage: Stage) -> None:
    """Neither another peer of the same layer nor a stranger; the right device's answer counts all the same."""
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    prompt = moot.ask("ann", Plan("fixed", layers, 2, aggregator="fixed:bob"))
    if stage is Stage.AGGREGATE or (stage is Stage.REFINE and layers == 2):
        for _ in range(layers if stage is Stage.AGGREGATE else 1):
            for name in ("ann", "bob", "cid"):
                moot.write(name)
    job = job_at(moot, BOB)
    for sender in (CID, DeviceId("stranger")):
        message = data.draw(anything_about(job))
        assert moot.tell("ann", Received(sender, message)) == []
    moot.work()
    end = moot.end_of(prompt)
    assert isinstance(end, PromptAnswered)
    assert {record.outcome for record in end.provenance.jobs} == {Outcome.OK}
    assert end.answer == "bob says so"


@settings(deadline=None, max_examples=150)
@given(data=st.data(), stream=st.booleans())
def test_after_the_end_nothing_is_said_about_a_prompt(data: st.DataObject, stream: bool) -> None:
    """Whatever comes late, from whomever, about whichever job, changes nothing and is not answered."""
    moot = Moot({"ann": "m", "bob": "m", "cid": "m"})
    prompt = moot.ask("ann", Plan("fixed", 2, 2), stream=stream)
    jobs = [job_at(moot, name) for name in (ANN, BOB, CID)]
    moot.work()
    assert isinstance(moot.end_of(prompt), PromptAnswered)
    for _ in range(3):
        message = data.draw(st.sampled_from(jobs).flatmap(anything_about))
        assert moot.tell("ann", Received(data.draw(st.sampled_from((BOB, CID))), message)) == []
    timers = [timer for _, _, me, timer in moot.timers if me == ANN]
    moot.devices[ANN].effects.clear()
    moot.pass_time(60.0)
    assert timers
    for effect in moot.devices[ANN].effects:
        assert not isinstance(effect, Announce)
        assert not isinstance(effect, Send) or prompt_of(getattr(effect.message, "job", JobId(""))) != prompt


@settings(deadline=None, max_examples=60)
@given(order=st.permutations(("ann", "bob", "cid", "dot")), layers=st.integers(1, 3), last=st.booleans())
def test_what_is_prepared_is_the_beginning_of_what_is_asked(
    order: list[str], layers: int, last: bool
) -> None:
    """Each prefill's answers are a prefix of the job's that it is for, the last answer's beginning included."""
    moot = Moot(dict.fromkeys(("ann", "bob", "cid", "dot"), "m"))
    moot.ask("ann", Plan("fixed", layers, 3, aggregator="fixed:cid"))
    for layer in range(1, layers + 1):
        for device in moot.devices.values():
            device.effects.clear()
        for name in order:
            if last and name == order[-1]:
                moot.write(name, "words " * 60, whole=False)
            moot.write(name, f"by {name}")
        answers = [f"by {name}" for name in order]
        if last:
            answers[-1] = "words " * 60 + answers[-1]
        effects = moot.devices[ANN].effects
        told = [
            e.message.inference for e in effects if isinstance(e, Send) and isinstance(e.message, Prepare)
        ]
        begun = [
            e.inference for device in moot.devices.values() for e in device.effects if isinstance(e, Warm)
        ]
        for each in (*told, *begun):
            *whole, part = each.answers or ("",)
            assert whole == answers[: len(whole)]
            assert answers[len(whole)].startswith(part)
        asked = {e.to for e in effects if isinstance(e, Send) and isinstance(e.message, Prepare)}
        nexts = {"bob", "cid", "dot"} if layer < layers else {"cid"}
        assert asked == nexts - {order[-1]}, "who writes until the end of the layer is told nothing ahead"
        assert max((len(each.answers) for each in told), default=3) == 3
        running = [device.running[1] for device in moot.devices.values() if device.running is not None]
        assert len(running) == (4 if layer < layers else 1)
        assert all(each.answers == tuple(answers) for each in running)
