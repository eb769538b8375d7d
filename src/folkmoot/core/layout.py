"""How a job's text is laid out: conversation, the paper's instruction, the peers' answers in fences.

Everything here is text. An engine with a tokenizer turns each piece into tokens by itself, so that a
longer inference of the same prompt begins with exactly the tokens of a shorter one; `as_chat` makes
plain messages for engines that take nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from folkmoot.core.messages import Inference, Layout, Turn

SYSTEM_PROMPT = (
    "You have been provided with a set of responses from various open-source models to the latest user query. "
    "Your task is to synthesize these responses into a single, high-quality response. It is crucial to "
    "critically evaluate the information provided in these responses, recognizing that some of it may be biased "
    "or incorrect. Your response should not simply replicate the given answers but should offer a refined, "
    "accurate, and comprehensive reply to the instruction. Ensure your response is well-structured, coherent, "
    "and adheres to the highest standards of accuracy and reliability. Do not add any additional comments about "
    "how you created these responses. Just synthesize these responses as instructed."
)
"""Verbatim from arXiv 2412.21200 (PROTOCOL.md, The system prompt)."""

_BACKTICKS = re.compile(r"`+")
_SENTENCE_END = re.compile(r"[.!?…]+[\"')\]]*(?=\s|$)|[。！？]|\n(?=\n)")
_CONTROL = re.compile(
    r"<\|[^<>|\s]{1,64}\|>|<｜[^<>｜]{1,64}｜>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:start|end)_of_turn>|<(?:bos|eos|pad|unk)>",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation and the index of the turn that the instruction and the answers go into."""

    turns: tuple[Turn, ...]
    open_turn: int


def arrange(inference: Inference) -> Conversation:
    """The turns as the template gets them, and where the answers go.

    `SHARED_PREFIX`: the turns are the user's own and the last user turn stays open. `SYSTEM_FIRST`: the
    first turn is the system's, made if there is none; a job without answers is the user's conversation as it is.
    """
    turns = inference.conversation
    layout = inference.layout if inference.answers else Layout.SHARED_PREFIX
    match layout:
        case Layout.SHARED_PREFIX:
            users = [index for index, turn in enumerate(turns) if turn.role == "user"]
            return Conversation(turns, users[-1] if users else len(turns) - 1)
        case Layout.SYSTEM_FIRST:
            if not turns or turns[0].role != "system":
                turns = (Turn("system", ""), *turns)
            return Conversation(turns, 0)


def opening(after_text: bool = True) -> str:
    """What stands between the open turn's own text and the first answer."""
    return f"\n\n{SYSTEM_PROMPT}" if after_text else SYSTEM_PROMPT


def fenced(number: int, text: str) -> str:
    """Answer `number` in a fence one backtick longer than any run in `text`, so that the text cannot close it."""
    longest = max((len(run) for run in _BACKTICKS.findall(text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"\n\nResponse {number}:\n{fence}\n{text}\n{fence}"


def spoken(answers: Sequence[str]) -> tuple[str, ...]:
    """The answers that say anything, in their order, without white space around them."""
    return tuple(text for text in (answer.strip() for answer in answers) if text)


def cut(text: str, limit: int, measure: Callable[[str], int]) -> str:
    """The longest beginning of `text` that measures at most `limit`, at a sentence's end where possible.

    `measure` must not shrink as the text grows. A sentence's end is taken if it keeps at least half of
    what would fit; else the last white space, else any character.
    """
    if limit <= 0:
        return ""
    if measure(text) <= limit:
        return text
    low, high = 0, len(text)
    while high - low > 1:
        middle = (low + high) // 2
        if measure(text[:middle]) <= limit:
            low = middle
        else:
            high = middle
    # One character beyond shows whether a sign at the very end ends a sentence.
    ends = [found.end() for found in _SENTENCE_END.finditer(text[: low + 1]) if found.end() <= low]
    if ends and ends[-1] * 2 >= low:
        return text[: ends[-1]].rstrip()
    spaces = [found.start() for found in re.finditer(r"\s", text[: low + 1])]
    if spaces and spaces[-1] * 2 >= low:
        return text[: spaces[-1]].rstrip()
    return text[:low].rstrip()


def share(room: int, expected: int, used: Sequence[int]) -> int:
    """The cap of the next answer: what the answers before it left, over those that may still come.

    `used` are the sizes of the answers before it. Nothing that comes later matters, so an answer is cut
    the same way whether two or four are there already.
    """
    waiting = max(1, expected - len(used))
    return max(0, room - sum(used)) // waiting


def fit(answers: Sequence[str], room: int, expected: int, measure: Callable[[str], int]) -> tuple[str, ...]:
    """The answers' fenced texts, each cut to its share of `room`, which they never exceed together.

    `measure` is additive enough: the whole may not measure more than its pieces. An answer that has no
    room for a single word is left out.
    """
    pieces: list[str] = []
    used: list[int] = []
    for text in spoken(answers):
        piece = _within(text, len(pieces) + 1, share(room, expected, used), measure)
        used.append(measure(piece) if piece else 0)
        if piece:
            pieces.append(piece)
    return tuple(pieces)


def as_chat(inference: Inference, room: int, measure: Callable[[str], int]) -> tuple[Turn, ...]:
    """An inference as plain messages, for engines that apply their template out of our sight.

    `room` is how much, in `measure`'s unit, the answers may take together. What looks like a control
    token in them is taken apart, since a server may tokenise it as one.
    """
    arranged = arrange(inference)
    answers = [defused(answer) for answer in spoken(inference.answers)]
    pieces = fit(answers, room, inference.expected, measure)
    if not pieces:
        return inference.conversation
    turns = list(arranged.turns)
    base = turns[arranged.open_turn]
    text = base.content + opening(bool(base.content)) + "".join(pieces)
    turns[arranged.open_turn] = Turn(base.role, text)
    return tuple(turns)


def defused(text: str) -> str:
    """The text with a space after the first sign of everything that looks like a control token."""
    return _CONTROL.sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)


def _within(text: str, number: int, limit: int, measure: Callable[[str], int]) -> str:
    """`text` fenced and cut so that the fence and it measure at most `limit`; empty if nothing fits."""
    beginning = cut(text, limit, lambda part: measure(fenced(number, part)))
    while beginning and measure(fenced(number, beginning)) > limit:
        beginning = cut(beginning, limit - 1, lambda part: measure(fenced(number, part)))
    return fenced(number, beginning) if beginning else ""
