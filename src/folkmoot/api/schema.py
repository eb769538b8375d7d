"""The foreign schema: what OpenAI's clients send and read, and our own additions to it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from folkmoot.core.choice import MAX_LAYERS, MAX_PROPOSERS
from folkmoot.core.events import Decision, DeviceRow, Round
from folkmoot.wire import limits

MAX_TOKENS = int(limits.NUMBERS["Sampling.max_tokens"][1])
"""What is asked here must reach the peers as well: the bounds are the wire's."""
Count = Annotated[int, Meta(ge=0)]
Text = Annotated[str, Meta(min_length=1, max_length=limits.TEXT)]


class Own(Struct, frozen=True, omit_defaults=True):
    """Folkmoot's own parameters, under `"folkmoot"` in a request and in a preset.

    `layers` is the paper's M and `proposers` its k: PEERS asked per layer, the origin answers as well.
    """

    layers: Annotated[int, Meta(ge=0, le=MAX_LAYERS)] | None = None
    proposers: Annotated[int, Meta(ge=0, le=MAX_PROPOSERS)] | None = None
    mode: Literal["auto", "fixed", "local"] | None = None
    aggregator: Annotated[str, Meta(pattern="^(origin|strongest|fixed:.+)$")] | None = None
    select: Annotated[str, Meta(pattern="^(uniform|best-of:[1-9][0-9]{0,3}|fixed:.+)$")] | None = None
    deadline_s: Annotated[float, Meta(ge=0.05, le=86_400)] | None = None
    private: bool | None = None
    quorum: Annotated[int, Meta(ge=1)] | None = None
    keep: Annotated[int, Meta(ge=1, le=MAX_PROPOSERS + 1)] | None = None
    early_stop: bool | None = None
    layout: Literal["shared-prefix", "system-first"] | None = None
    progress: bool | None = None
    proposals: bool | None = None


class TextPart(Struct, frozen=True):
    """One part of a message's content; only text can be read."""

    type: Literal["text"]
    text: str


class Message(Struct, frozen=True):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]


class StreamOptions(Struct, frozen=True):
    """What a stream shall carry beside the text."""

    include_usage: bool | None = None


class ChatRequest(Struct, frozen=True):
    """Body of `POST /v1/chat/completions`; fields that are not named here are ignored."""

    model: str
    messages: Annotated[
        list[Message], Meta(min_length=1, max_length=limits.LENGTHS["Inference.conversation"])
    ]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | None = None
    stop: Text | Annotated[list[Text], Meta(max_length=limits.LENGTHS["Sampling.stop"])] | None = None
    folkmoot: Own | None = None


class PromptTokensDetails(Struct, frozen=True):
    """Of the tokens read: those that a cache spared."""

    cached_tokens: Count


class CompletionTokensDetails(Struct, frozen=True):
    """Of the tokens written: the final answer's own, and the proposals' behind it."""

    answer_tokens: Count
    reasoning_tokens: Count


class Usage(Struct, frozen=True):
    """The true sum over all jobs of the prompt."""

    prompt_tokens: Count
    completion_tokens: Count
    total_tokens: Count
    prompt_tokens_details: PromptTokensDetails
    completion_tokens_details: CompletionTokensDetails


class OwnUsage(Struct, frozen=True):
    """What the final job alone read and wrote."""

    prompt_tokens: Count
    cached_tokens: Count
    completion_tokens: Count


class JobRow(Struct, frozen=True, omit_defaults=True):
    """One job; `core.events.JobRecord`, with what did not happen left out; `text` where proposals were asked for."""

    layer: int
    stage: str
    device: str
    model: str
    outcome: str
    queued_s: float
    inference_s: float
    first_token_s: float
    tokens_in: int
    tokens_cached: int
    tokens_out: int
    stands_in_for: str | None = None
    error: str | None = None
    text: str = ""


class Answer(Struct, frozen=True):
    """How an answer came to be, under `"folkmoot"` in a response."""

    id: str
    answer: str
    mode: str
    layers: int
    proposers: int
    latency_s: float
    first_token_s: float
    origin: str
    devices: tuple[DeviceRow, ...]
    jobs: tuple[JobRow, ...]
    rounds: tuple[Round, ...]
    decisions: tuple[Decision, ...]
    final: OwnUsage


class AnswerMessage(Struct, frozen=True):
    """The assistant's message."""

    role: Literal["assistant"]
    content: str
    refusal: None = None


FinishReason = Literal["stop", "length"]


class Choice(Struct, frozen=True):
    """The one choice of a completion."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: None = None


class ChatCompletion(Struct, frozen=True):
    """Body of a completion that was not streamed."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: Usage
    folkmoot: Answer


class Delta(Struct, frozen=True, omit_defaults=True):
    """What a chunk adds to the assistant's message."""

    role: Literal["assistant"] | UnsetType = UNSET
    content: str | UnsetType = UNSET


class ChunkChoice(Struct, frozen=True):
    """The one choice of a chunk."""

    index: int
    delta: Delta
    finish_reason: FinishReason | None = None
    logprobs: None = None


class ChatChunk(Struct, frozen=True, omit_defaults=True):
    """One event of a streamed completion; `folkmoot` rides on the one that ends the text."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: Usage | UnsetType | None = UNSET
    folkmoot: Answer | UnsetType = UNSET


class Model(Struct, frozen=True):
    """One row of the list of models."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Struct, frozen=True):
    """Body of `GET /v1/models`."""

    object: Literal["list"]
    data: tuple[Model, ...]


class StageTimes(Struct, frozen=True):
    """Mean seconds of a device's jobs of each stage; null where it has served none."""

    propose: float | None
    refine: float | None
    aggregate: float | None


class SkillRow(Struct, frozen=True):
    """How a device's model did at the probes of one class: so many of all were right."""

    skill: str
    right: int
    total: int


class MemberRow(Struct, frozen=True):
    """A device of the moot; `standing` is alive, suspect, dead, left or banned.

    `load` is ρ as the device measures it over the last 50 jobs: from 1 on its queue grows. `debt` is its virtual debt in jobs.
    `limit` is what its `slots` can do, jobs per second, and `headroom` what of that is left: below 0 it has too much to do. Both
    are null before a first job. `service_s` is the mean time of its jobs, `stage_s` that of each stage. `closed`: it serves its own users only, for now or for good.
    `skill` is its model's size in billions of parameters, `skills` what its probes say, without the classes that are not through.
    `doubt` says why those are not believed here, empty where they are.
    """

    id: str
    name: str
    model: str
    standing: str
    address: str
    context_tokens: int
    skill: float
    queue: int
    busy: int
    buffer: int
    service_s: float
    stage_s: StageTimes
    load: float
    debt: float
    slots: int
    limit: float | None
    headroom: float | None
    closed: bool
    skills: tuple[SkillRow, ...]
    doubt: str = ""


class StageRow(Struct, frozen=True):
    """What this device's jobs of a stage cost on average: seconds, tokens, and how many come per second."""

    stage: str
    jobs: int
    service_s: float
    tokens_in: float
    tokens_cached: float
    tokens_out: float
    rate: float


class MootStatus(Struct, frozen=True):
    """Body of `GET /v1/moot`; `members` lists this device first.

    `local_only`: no device on another machine can reach this one. `jobs` were served here since the start, in `busy_s` seconds
    of all slots together. `banned` are the ids of all that the moot bans, whether this device has met them or not.
    """

    device: str
    name: str
    moot: str
    address: str
    engine: str
    engine_note: str
    model: str
    queue: int
    busy: int
    buffer: int
    prompts: int
    uptime_s: float
    members: tuple[MemberRow, ...]
    local_only: bool
    stages: tuple[StageRow, ...]
    jobs: int
    busy_s: float
    banned: tuple[str, ...]


class Health(Struct, frozen=True, omit_defaults=True):
    """Body of `GET /healthz`. `journal`, where it is there, says why nothing is accepted in the background: it is
    `damaged`, `full` or `unusable`.
    """

    status: str
    journal: str = ""


class InvitationRequest(Struct, frozen=True):
    """Body of `POST /v1/moot/invitations`."""

    uses: Annotated[int, Meta(ge=1, le=1_000)] = 1
    ttl_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 86_400.0
    delegate: bool = False


class Invitation(Struct, frozen=True):
    """A bearer secret that admits `uses` devices."""

    invitation: str


class BanRequest(Struct, frozen=True):
    """Body of `POST /v1/moot/bans`: a device's name or id."""

    device: Annotated[str, Meta(min_length=1, max_length=128)]


class Banned(Struct, frozen=True):
    """The device that is out, for good."""

    device: str


class RotationRequest(Struct, frozen=True):
    """Body of `POST /v1/moot/rotations`: how long certificates under the old root key still count."""

    grace_s: Annotated[float, Meta(ge=1, le=31_536_000)] = 604_800.0


class Rotated(Struct, frozen=True):
    """The moot has a new root key; the old one counts until `until`, in seconds since 1970."""

    until: int


class Forgotten(Struct, frozen=True):
    """So many responses were deleted."""

    forgotten: int


class Fault(Struct, frozen=True):
    """What went wrong; `code` is stable, `param` names the field of the request at fault."""

    message: str
    type: str
    code: str
    param: str | None = None


class Failure(Struct, frozen=True):
    """OpenAI's error object."""

    error: Fault


class Accepted(Struct, frozen=True, tag="accepted"):
    """A prompt runs, with so many layers and peers."""

    id: str
    layers: int
    proposers: int


class Job(Struct, frozen=True, tag="job"):
    """A job of a prompt moved."""

    id: str
    job: str
    layer: int
    stage: str
    device: str
    name: str
    model: str
    state: str
    ahead: int
    characters: int


class Wrote(Struct, frozen=True, tag="wrote"):
    """So many more characters of a final answer were written."""

    id: str
    characters: int


class Answered(Struct, frozen=True, tag="answered"):
    """A prompt ended with an answer."""

    id: str
    truncated: bool
    tokens_out: int
    latency_s: float
    jobs: tuple[JobRow, ...]


class Failed(Struct, frozen=True, tag="failed"):
    """A prompt ended without an answer."""

    id: str
    code: str


class MemberSeen(Struct, frozen=True, tag="member"):
    """A row of the member list changed."""

    member: MemberRow


Progress = Accepted | Job
Happening = Accepted | Job | Wrote | Answered | Failed | MemberSeen
