"""What devices say to each other about jobs, and what a job is.

Membership's own messages live in `gossip.py`; `Message` below is the union of both. All are frozen
dataclasses of plain types, so that `wire` can encode exactly these classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from folkmoot.core.gossip import GossipMessage
from folkmoot.core.ids import JobId, PromptId


class Stage(StrEnum):
    """Which part of a prompt's life a job belongs to."""

    PROPOSE = "propose"
    REFINE = "refine"
    AGGREGATE = "aggregate"
    JUDGE = "judge"


TOLD = (Stage.PROPOSE, Stage.REFINE, Stage.AGGREGATE)
"""The stages whose times devices tell one another. A judge is its origin's own, seldom, and counts as a mean job."""


class Outcome(StrEnum):
    """How a job ended, as the provenance tells it."""

    OK = "ok"
    LATE = "late"
    FAILED = "failed"
    CANCELLED = "cancelled"
    REFUSED = "refused"


class Layout(StrEnum):
    """Where the paper's system prompt stands in a refine or aggregate job (PROTOCOL.md, Prompt layout)."""

    SHARED_PREFIX = "shared-prefix"
    SYSTEM_FIRST = "system-first"


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation; `role` is `system`, `user` or `assistant`."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How an answer is drawn. `max_tokens` >= 1; `temperature` 0..2; `seed` None means unseeded."""

    max_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Inference:
    """The work of one job, as an engine gets it.

    `answers` are the previous layer's, in order of arrival, empty in layer 1; `expected` is how many
    there may be in all (k + 1), so that each gets a fair share of the context that does not change when
    more arrive. `prompt` is the cache key: inferences of one prompt share a prefix. `fence` is a word that
    nobody who answered could guess, for the lines around each answer; empty: the paper's layout. The last
    `suspect` of the answers are those that the origin's screen has marked. The answer has `begun` so already, and
    is to go on from there. `task` is what is to be done with the answers instead of making one out of them: its words stand behind them.
    """

    prompt: PromptId
    conversation: tuple[Turn, ...]
    answers: tuple[str, ...] = ()
    expected: int = 0
    sampling: Sampling = Sampling()
    layout: Layout = Layout.SHARED_PREFIX
    fence: str = ""
    suspect: int = 0
    begun: str = ""
    task: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """What one inference cost. Tokens are counts, times seconds.

    `tokens_in` is the whole input, of which `tokens_cached` were not evaluated again;
    `first_token_s` counts from the start of the inference.
    """

    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    inference_s: float = 0.0
    first_token_s: float = 0.0

    def then(self, later: Usage) -> Usage:
        """What this inference and a later one for the same job cost together."""
        return Usage(
            self.tokens_in + later.tokens_in,
            self.tokens_cached + later.tokens_cached,
            self.tokens_out + later.tokens_out,
            self.inference_s + later.inference_s,
            self.inference_s + later.first_token_s,
        )


@dataclass(frozen=True, slots=True)
class Ask:
    """Origin → peer: put this job into your queue. Asking twice is asking once.

    `hops` counts moots on the way; a job that has crossed one is refused (no recursion). A judge comes after the jobs of its
    layer: its `layer` is the next one.
    """

    job: JobId
    prompt: PromptId
    layer: int
    stage: Stage
    inference: Inference
    hops: int = 0

    @property
    def kind(self) -> Stage:
        """The stage that it is like in what it costs: an answer alone (M = 0) reads no others, as those of layer 1."""
        return Stage.PROPOSE if self.layer == 1 else self.stage


@dataclass(frozen=True, slots=True)
class Queued:
    """Peer → origin: the job is in my queue, `ahead` jobs before it."""

    job: JobId
    ahead: int


@dataclass(frozen=True, slots=True)
class Began:
    """Peer → origin: my engine has begun with the job, after `queued_s` seconds in the queue."""

    job: JobId
    queued_s: float


@dataclass(frozen=True, slots=True)
class Piece:
    """Peer → origin: text of the answer from character `offset` on, and what the job has cost so far."""

    job: JobId
    offset: int
    text: str
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Answer:
    """Peer → origin: the answer is whole at `length` characters. Without this no answer counts."""

    job: JobId
    length: int
    queued_s: float
    usage: Usage
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Undone:
    """Peer → origin: the job ended without an answer. `code` is an error's code, `detail` is for people.

    `usage` is what it cost all the same. A cancelled job ends so too, that its cost is known.
    """

    job: JobId
    outcome: Outcome
    code: str
    detail: str
    queued_s: float = 0.0
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Cancel:
    """Origin → peer: nobody needs this job any more."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Poll:
    """Origin → peer: I have `have` characters of this job; tell me again what comes after them."""

    job: JobId
    have: int


@dataclass(frozen=True, slots=True)
class Prepare:
    """Origin → peer: you will get this prompt's next job; evaluate this much of it when idle."""

    inference: Inference


JobMessage = Ask | Queued | Began | Piece | Answer | Undone | Cancel | Poll | Prepare
Message = JobMessage | GossipMessage
