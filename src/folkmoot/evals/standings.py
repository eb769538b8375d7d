"""What a judge's verdicts come to: win rates against a baseline, marks, and how far the judge itself can be believed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from folkmoot.errors import EvalError
from folkmoot.evals.judging import TIE, TOO_LONG, UNPARSABLE, A, B
from folkmoot.evals.lines import Lines
from folkmoot.evals.statistics import Interval, difference, known
from folkmoot.evals.winrate import PROMPTS, Judged, win_rate

JUDGMENTS, JUDGMENTS_PACKED = "judgments.jsonl", "judgments.jsonl.xz"
"""In a run's folder; the second is small enough to be committed."""

PAIR, SAME, GRADE = "pair", "same", "grade"
"""Two answers were compared, one was compared with itself, one was marked."""


@dataclass(frozen=True, slots=True)
class Judgment:
    """One reply of a judge, or what needs none.

    `weak` is why the judge's verdicts are no evidence of quality, empty where nothing is known against it. In a pair `place` is where
    the arm's answer stood, A or B, and `against` what the other one was of. `verdict` is a word of `judging`, empty where there are
    `scores`: the mark `""`, or one for each skill. `characters` are those of the arm's answer and the other. `index` is the task's
    among AlpacaEval's own instructions, if it is one of them. `call` names the call by its content: empty where nobody was asked,
    since a side had no answer, which loses and has the lowest marks.
    """

    judge: str
    weak: str
    task: str
    arm: str
    against: str
    kind: str
    place: str
    verdict: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    characters: tuple[int, int] = (0, 0)
    index: int | None = None
    call: str = ""
    reply: str = ""

    @property
    def key(self) -> tuple[str, ...]:
        """What it is a judgment of."""
        return self.judge, self.task, self.arm, self.against, self.kind, self.place

    @property
    def set(self) -> str:
        """The set of its task."""
        return self.task.partition("/")[0]


class Judgments(Lines[Judgment]):
    """The judgments of one run."""

    @staticmethod
    def parse(row: Mapping[str, Any]) -> Judgment:
        """A judgment of its fields."""
        mine, other = row["characters"]
        scores = {str(name): float(value) for name, value in dict(row["scores"]).items()}
        return Judgment(**{**row, "characters": (int(mine), int(other)), "scores": scores})


def load(folder: Path) -> list[Judgment]:
    """The judgments of a run's folder, packed or not; none where nobody has judged. Raises `EvalError`."""
    lines, packed = folder / JUDGMENTS, folder / JUDGMENTS_PACKED
    if not lines.exists() and packed.exists():
        return list(Judgments.unpack(packed))
    return list(Judgments.open(lines))


@dataclass(frozen=True, slots=True)
class Standing:
    """An arm against a baseline on the `pairs` that were judged in both orders, and understood.

    `rate` is the share that it won, a tie half: a pair's is the mean of its two orders. `won`, `lost` and `tied` are the pairs with more,
    less and just half, of which `flipped` are tied only because the judge took the same place in both orders. `unparsable` and `too_long`
    could not be judged and count nowhere. Of `unanswered` one side had no answer. `controlled` is the length-controlled win
    rate in percent, None for the reason `uncontrolled`.
    """

    judge: str
    set: str
    arm: str
    against: str
    pairs: int
    rate: Interval
    won: int
    lost: int
    tied: int
    flipped: int
    unparsable: int
    too_long: int
    unanswered: int
    controlled: float | None
    uncontrolled: str


@dataclass(frozen=True, slots=True)
class Bias:
    """What a judge says of the same answer on both sides, `shown` times, and what may be said of its verdicts (`weak`: see `Judgment`)."""

    judge: str
    weak: str
    shown: int
    first: int
    second: int
    tied: int
    unparsable: int

    @property
    def leaning(self) -> float | None:
        """The share of its readable verdicts that is for the first place, less that for the second: 0 is fair."""
        read = self.first + self.second + self.tied
        return (self.first - self.second) / read if read else None

    @property
    def evidence(self) -> str:
        """What the verdicts are worth, in words."""
        if self.weak:
            return f"The verdicts of {self.judge} are no evidence of quality: {self.weak}."
        return f"Nothing is known against {self.judge} as a judge: see its flips and its bias."


@dataclass(frozen=True, slots=True)
class Marks:
    """The mean mark of an arm's answers by `name` (a turn of MT-Bench, a skill of FLASK), and how many had none that could be read."""

    judge: str
    set: str
    arm: str
    name: str
    count: int
    mean: Interval
    unread: int


@dataclass(frozen=True, slots=True)
class Verdicts:
    """All that judges said."""

    standings: tuple[Standing, ...] = ()
    marks: tuple[Marks, ...] = ()
    judges: tuple[Bias, ...] = ()


def verdicts(judgments: Iterable[Judgment], difficulty: Path | None = None) -> Verdicts:
    """What the judgments come to. `difficulty` is the file of AlpacaEval's difficulties, for the length-controlled win rate."""
    pairs: dict[tuple[str, str, str, str], list[Judgment]] = {}
    marked: dict[tuple[str, str, str], list[Judgment]] = {}
    of_judge: dict[str, list[Judgment]] = {}
    for each in judgments:
        of_judge.setdefault(each.judge, []).append(each)
        if each.kind == PAIR:
            pairs.setdefault((each.judge, each.set, each.arm, each.against), []).append(each)
        elif each.kind == GRADE:
            marked.setdefault((each.judge, each.set, each.arm), []).append(each)
    standings = (_standing(key, some, difficulty) for key, some in sorted(pairs.items()))
    return Verdicts(
        tuple(each for each in standings if each is not None),
        tuple(each for key, some in sorted(marked.items()) for each in _marks(key, some)),
        tuple(_bias(judge, some) for judge, some in sorted(of_judge.items())),
    )


def _standing(
    key: tuple[str, str, str, str], judgments: Sequence[Judgment], difficulty: Path | None
) -> Standing | None:
    both: dict[str, dict[str, Judgment]] = {}
    for each in judgments:
        both.setdefault(each.task, {})[each.place] = each
    whole = {task: some for task, some in both.items() if len(some) == 2}
    if not whole:
        return None  # it was stopped before any had its second order
    seen = Counter[str]()
    rates: dict[str, float] = {}
    for task, some in whole.items():
        said = [some[A].verdict, some[B].verdict]
        seen["unanswered"] += not some[A].call
        bad = TOO_LONG if TOO_LONG in said else UNPARSABLE if UNPARSABLE in said else ""
        if bad:
            seen[bad] += 1
            continue
        rate = rates[task] = (_won(A, said[0]) + _won(B, said[1])) / 2
        seen["won" if rate > 0.5 else "lost" if rate < 0.5 else "tied"] += 1
        seen["flipped"] += said[0] == said[1] != TIE
    judge, name, arm, against = key
    by_question: dict[str, list[tuple[float, float]]] = {}
    for task, rate in rates.items():
        by_question.setdefault("/".join(task.split("/")[:2]), []).append((rate, 0.0))
    controlled, why = _controlled(arm, whole, rates, difficulty)
    return Standing(
        judge, name, arm, against, len(rates),
        difference(by_question) if rates else Interval(float("nan"), 0.0, 1.0),
        seen["won"], seen["lost"], seen["tied"], seen["flipped"], seen[UNPARSABLE], seen[TOO_LONG], seen["unanswered"], controlled, why,
    )  # fmt: skip


def _won(place: str, verdict: str) -> float:
    return 0.5 if verdict == TIE else float(verdict == place)


def _controlled(
    arm: str, whole: Mapping[str, Mapping[str, Judgment]], rates: Mapping[str, float], difficulty: Path | None
) -> tuple[float | None, str]:
    """AlpacaEval's length-controlled win rate, or why there is none."""
    rows = [
        Judged(each.index, 1 + rates[task], each.characters[1], each.characters[0])
        for task, each in ((task, some[A]) for task, some in whole.items())
        if each.index is not None and task in rates
    ]
    if len(rows) < PROMPTS:
        return (
            None,
            f"it is known for all of AlpacaEval's {PROMPTS} instructions together; {len(rows)} of them have a verdict",
        )
    if difficulty is None:
        return None, "no file of the instructions' difficulties was named (--difficulty)"
    try:
        return win_rate(arm, rows, difficulty).controlled, ""
    except EvalError as error:
        return None, str(error)


def _marks(key: tuple[str, str, str], judgments: Sequence[Judgment]) -> list[Marks]:
    judge, name, arm = key
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    unread = Counter[str]()
    for each in judgments:
        turn = each.task.split("/")[2:]
        of = f"turn {turn[0] if turn else 1}" if name == "mtbench" else ""
        unread[of] += not each.scores
        for skill, value in each.scores.items():
            found.setdefault(skill or of, {}).setdefault(each.task, []).append((value, 0.0))
    # Of FLASK a reply gives all marks or none, so that what has none is told once, without a skill.
    names = sorted({*found, *(of for of, count in unread.items() if count)})
    nothing = Interval(float("nan"), float("nan"), float("nan"))
    return [
        Marks(judge, name, arm, of, len(some), difference(some) if some else nothing, unread[of])
        for of in names
        for some in [found.get(of, {})]
    ]


def _bias(judge: str, judgments: Sequence[Judgment]) -> Bias:
    same = Counter(each.verdict for each in judgments if each.kind == SAME)
    return Bias(
        judge, judgments[-1].weak, same.total(), same[A], same[B], same[TIE], same[UNPARSABLE] + same[TOO_LONG]
    )  # fmt: skip


# ---- JSON ----------------------------------------------------------------------------------------------


def win_rates(found: Verdicts) -> list[dict[str, Any]]:
    """Rows of `win_rate` (INTERFACE.md), rates in percent. Nobody has published any of these."""
    evidence = {each.judge: each.evidence for each in found.judges}
    return [
        {
            "model": each.arm, "ours": _percent(each.rate.value), "published": None, "ours_lc": each.controlled, "published_lc": None,
            "low": _percent(each.rate.low), "high": _percent(each.rate.high), "set": each.set, "against": each.against, "judge": each.judge,
            "pairs": each.pairs, "won": each.won, "lost": each.lost, "tied": each.tied, "flipped": each.flipped,
            "unparsable": each.unparsable, "too_long": each.too_long, "unanswered": each.unanswered,
            "no_lc": each.uncontrolled, "evidence": evidence[each.judge],
        }
        for each in found.standings
    ]  # fmt: skip


def marks_told(found: Verdicts) -> list[dict[str, Any]]:
    """Mean marks."""
    return [
        {
            "judge": each.judge, "set": each.set, "arm": each.arm, "of": each.name, "count": each.count, "mean": known(each.mean.value),
            "low": known(each.mean.low), "high": known(each.mean.high), "unread": each.unread,
        }
        for each in found.marks
    ]  # fmt: skip


def judges_told(found: Verdicts) -> list[dict[str, Any]]:
    """What the judges did with the same answer on both sides."""
    return [
        {
            "judge": each.judge, "evidence": each.evidence, "identical": each.shown, "first": each.first, "second": each.second,
            "tied": each.tied, "unparsable": each.unparsable, "bias": each.leaning,
        }
        for each in found.judges
    ]  # fmt: skip


def _percent(share: float) -> float | None:
    value = known(share)
    return None if value is None else 100 * value
