"""What goes into a peer and what comes out of it: the whole contract between core and driver.

A driver (`node` live, `sim` virtual) feeds events to `Peer.handle(event, now)` and carries out the
effects, in order. It decides nothing.

The driver's duties:
1. Deliver every queued datagram before any timer that is due.
2. `Generate`: run the engine; report `Generated` pieces, then one `Finished` or `EngineFailed`.
   After `Abort` report `EngineFailed(code="cancelled")` once the engine is free again.
3. `Warm`: evaluate at most one small step, then report `Warmed`; on `Chill` stop at once and report.
   `Generate` may come while a step is running only after `Chill`.
4. `SetTimer`: give the timer back as `Fired` at `at` or later. Timers are values; stale ones are harmless.
5. `Send`: messages of one job to one device keep their order (live: one stream a job). Datagrams may be lost.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from folkmoot.core.gossip import Card, Member
from folkmoot.core.ids import DeviceId, JobId, PromptId
from folkmoot.core.messages import Inference, Layout, Message, Outcome, Sampling, Stage, Turn, Usage

# ---- what a user asks ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Plan:
    """How a prompt is to be answered. `layers` = M, `proposers` = k (peers per layer).

    `mode` is `fixed`, `auto` or `local`; in `auto` and `local` the peer fills in M and k itself.
    `select` is empty or the fixed peers' names or ids; without it peers are drawn uniformly, or with
    `best_of` = d > 0 so many are drawn and those with the least expected delay are asked; `aggregator` is `origin`, `strongest`
    or `fixed:NAME`. `quorum` 0 means all k + 1. `private`: no word of the prompt leaves this device; `rule` names what of
    the configuration says so, where its user did not. In mode `fixed` a judge may let only the best `keep` answers of a layer
    go on (0: all), and with `early_stop` say that the layers that are left are not needed (`core.judge`).
    """

    mode: str = "auto"
    layers: int = 1
    proposers: int | None = None
    select: tuple[str, ...] = ()
    aggregator: str = "origin"
    quorum: int = 0
    deadline_s: float | None = None
    layout: Layout = Layout.SHARED_PREFIX
    best_of: int = 0
    private: bool = False
    rule: str = ""
    keep: int = 0
    early_stop: bool = False


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """A live device, as the provenance and the status name it."""

    id: str
    name: str
    model: str


@dataclass(frozen=True, slots=True)
class Proposal:
    """An answer of a layer that has arrived whole, with all that its origin needs of it: who wrote it, and at what cost."""

    layer: int
    slot: int
    device: DeviceRow
    text: str
    usage: Usage = Usage()
    queued_s: float = 0.0
    stands_in_for: DeviceRow | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A job that another device was asked for, and in whose place."""

    job: JobId
    layer: int
    slot: int
    device: DeviceId
    stands_in_for: DeviceId | None = None


@dataclass(frozen=True, slots=True)
class Headway:
    """How far a prompt has come: its M and k, the layer that it is in (M + 1 aggregates), and answers, in order of arrival.

    `asked`: whom it has asked, in order; some of it may be under way there yet, or done.
    """

    layers: int
    proposers: int
    layer: int
    proposals: tuple[Proposal, ...] = ()
    asked: tuple[Asked, ...] = ()

    def then(self, later: Headway) -> Headway:
        """This and what came after it."""
        proposals, asked = self.proposals + later.proposals, self.asked + later.asked
        return replace(later, proposals=proposals, asked=asked)

    @property
    def is_asked(self) -> bool:
        """Whether only the aggregation is left: all layers are behind it, each with an answer."""
        answered = {proposal.layer for proposal in self.proposals}
        return self.layer > self.layers and all(layer in answered for layer in range(1, self.layers + 1))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A user's prompt. `stream`: its first words are shown as they come, so it cannot start over.

    `keep`: each step forward is announced (`Advanced`), so that it can be kept. `headway`: how far an earlier try of
    the same prompt has come, which is not asked for again.
    """

    id: PromptId
    conversation: tuple[Turn, ...]
    plan: Plan = Plan()
    sampling: Sampling = Sampling()
    stream: bool = False
    hops: int = 0
    keep: bool = False
    headway: Headway | None = None


# ---- what happened (events) ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The driver is up: `contacts` are remembered or invited members, as (device, address)."""

    contacts: tuple[tuple[DeviceId, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Received:
    """A message came from `sender`, whose key the transport has proven."""

    sender: DeviceId
    message: Message


@dataclass(frozen=True, slots=True)
class Fired:
    """A timer that was set has come due."""

    timer: Timer


@dataclass(frozen=True, slots=True)
class Submitted:
    """A local user asks."""

    prompt: Prompt


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A local user has gone away or taken the prompt back."""

    prompt: PromptId


@dataclass(frozen=True, slots=True)
class Generated:
    """The engine wrote `text` for the job in service, which has cost `usage` so far."""

    job: JobId
    text: str
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Finished:
    """The engine is done with the job in service. `truncated`: stopped by max_tokens or the context."""

    job: JobId
    usage: Usage
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class EngineFailed:
    """The engine gave up the job in service; `code` as in errors.py, `cancelled` after an `Abort`."""

    job: JobId
    code: str
    detail: str
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True)
class Warmed:
    """A prefill step is over: `evaluated` of `total` tokens of the prompt's open prefix are in the cache."""

    prompt: PromptId
    evaluated: int
    total: int


@dataclass(frozen=True, slots=True)
class StreamLost:
    """The stream of a job to or from `device` broke, or could not be opened."""

    device: DeviceId
    job: JobId


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The connection to a device broke: a hint, no verdict."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class CardChanged:
    """This device's own card changed (engine up or down, another address)."""

    card: Card


@dataclass(frozen=True, slots=True)
class Banned:
    """A device is no member any more, for good."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class ServiceLimited:
    """Whom this device serves no more, for the money that it costs: all `others`, or these `origins`; `code` and `detail` tell
    them. `own`: nor its own users.
    """

    others: bool
    origins: tuple[DeviceId, ...]
    code: str
    detail: str
    own: bool = False


@dataclass(frozen=True, slots=True)
class Leaving:
    """The driver is about to shut down: hand back what is queued for others, take nothing new."""


@dataclass(frozen=True, slots=True)
class Stopping:
    """The driver stops now: end what is still there and tell the others that this device leaves."""


Event = (
    Started
    | Received
    | Fired
    | Submitted
    | Withdrawn
    | Generated
    | Finished
    | EngineFailed
    | Warmed
    | StreamLost
    | LinkLost
    | CardChanged
    | Banned
    | ServiceLimited
    | Leaving
    | Stopping
)

# ---- timers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class GossipTimer:
    """Membership's own; `kind` and `about` mean something to it only."""

    kind: str
    about: str = ""


@dataclass(frozen=True, slots=True)
class PollTimer:
    """Nothing was heard of a remote job for a while: ask after it."""

    job: JobId


@dataclass(frozen=True, slots=True)
class LateTimer:
    """A remote job may be late by its device's own estimate."""

    job: JobId


@dataclass(frozen=True, slots=True)
class BreakTimer:
    """A peer that did not answer again and again may be tried once more."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class WaitTimer:
    """A first-layer job may have waited here for too long."""

    job: JobId
    origin: DeviceId


@dataclass(frozen=True, slots=True)
class DeadlineTimer:
    """The prompt's deadline."""

    prompt: PromptId


@dataclass(frozen=True, slots=True)
class ForgetTimer:
    """A finished job's text has been kept long enough for its origin to ask again."""

    job: JobId
    origin: DeviceId


Timer = GossipTimer | PollTimer | LateTimer | BreakTimer | WaitTimer | DeadlineTimer | ForgetTimer

# ---- what a user gets to see -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job in the provenance (INTERFACE.md, `jobs`). `device` and `model` are names; times in seconds.

    `text` is a proposal or a verdict as far as it has come; the aggregation's is the prompt's answer and stands there.
    """

    layer: int
    stage: Stage
    device: str
    model: str
    outcome: Outcome
    queued_s: float = 0.0
    inference_s: float = 0.0
    first_token_s: float = 0.0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    stands_in_for: str | None = None
    error: str | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class Round:
    """Who was asked in a layer, who answered (in order of arrival), who stood in for whom."""

    layer: int
    asked: tuple[str, ...]
    answered: tuple[str, ...] = ()
    stood_in: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """Something the moot chose by itself, and why."""

    what: str
    why: str


@dataclass(frozen=True, slots=True)
class Provenance:
    """How an answer came to be (INTERFACE.md, JSON of an answer, without the answer itself)."""

    id: str
    mode: str
    layers: int
    proposers: int
    latency_s: float
    first_token_s: float
    origin: str
    devices: tuple[DeviceRow, ...]
    jobs: tuple[JobRecord, ...]
    rounds: tuple[Round, ...]
    decisions: tuple[Decision, ...]


# ---- announcements ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PromptAccepted:
    """The prompt runs, with this many layers and peers."""

    prompt: PromptId
    layers: int
    proposers: int


@dataclass(frozen=True, slots=True)
class JobProgress:
    """A job of a local prompt moved: `state` is asked, queued, began, writing, or an outcome."""

    prompt: PromptId
    job: JobId
    layer: int
    stage: Stage
    device: DeviceId
    name: str
    model: str
    state: str
    ahead: int = 0
    characters: int = 0


@dataclass(frozen=True, slots=True)
class Advanced:
    """A prompt that is to be kept has come forward: what is new since the last of these."""

    prompt: PromptId
    headway: Headway


@dataclass(frozen=True, slots=True)
class AnswerText:
    """The next words of the final answer, in order."""

    prompt: PromptId
    text: str


@dataclass(frozen=True, slots=True)
class PromptAnswered:
    """The end of a prompt: its whole answer. `truncated` and `usage` are the final job's; the sum is over `jobs`."""

    prompt: PromptId
    answer: str
    truncated: bool
    usage: Usage
    provenance: Provenance


@dataclass(frozen=True, slots=True)
class PromptFailed:
    """The end of a prompt without an answer; `code` as in errors.py. `retry_s`: when to ask again, 0 where nobody knows."""

    prompt: PromptId
    code: str
    detail: str
    provenance: Provenance | None = None
    retry_s: float = 0.0


@dataclass(frozen=True, slots=True)
class MemberChanged:
    """A row of the member list changed (came, went, became suspect, changed its card)."""

    member: Member


Notice = PromptAccepted | JobProgress | Advanced | AnswerText | PromptAnswered | PromptFailed | MemberChanged

# ---- what is to be done (effects) ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a message. The driver asks `Peer.address_of(to)` where it must dial."""

    to: DeviceId
    message: Message


@dataclass(frozen=True, slots=True)
class SetTimer:
    """Give `timer` back at `at` (seconds on the driver's monotonic clock)."""

    at: float
    timer: Timer


@dataclass(frozen=True, slots=True)
class Generate:
    """Run this job on the device's own engine."""

    job: JobId
    inference: Inference


@dataclass(frozen=True, slots=True)
class Abort:
    """Stop the job in service at once."""

    job: JobId


@dataclass(frozen=True, slots=True)
class Warm:
    """Evaluate one small step of this inference's open prefix (conversation and answers so far)."""

    inference: Inference


@dataclass(frozen=True, slots=True)
class Chill:
    """Stop the prefill step that is running."""

    prompt: PromptId


@dataclass(frozen=True, slots=True)
class Announce:
    """Tell whoever listens on this device."""

    notice: Notice


@dataclass(frozen=True, slots=True)
class Disconnect:
    """Close the connection to a device that is held dead, which ends all its streams."""

    device: DeviceId


Effect = Send | SetTimer | Generate | Abort | Warm | Chill | Announce | Disconnect
