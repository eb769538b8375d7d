"""The foreign schema of `/v1/responses`: what OpenAI's clients send and read there, and our own additions to it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from folkmoot.api.schema import MAX_TOKENS, Answer, CompletionTokensDetails, Count, Own, PromptTokensDetails
from folkmoot.wire import limits

Status = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=16)
]


class InputPart(Struct, frozen=True):
    """One part of an input message; only text can be read."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class InputMessage(Struct, frozen=True):
    """One message of the conversation so far; an earlier response's `output` may stand here as it came."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[InputPart]
    type: Literal["message"] = "message"


class ResponseRequest(Struct, frozen=True, omit_defaults=True):
    """Body of `POST /v1/responses`; fields that are not named here are ignored."""

    model: str
    input: (
        str
        | Annotated[
            list[InputMessage], Meta(min_length=1, max_length=limits.LENGTHS["Inference.conversation"] - 1)
        ]
    )
    instructions: str | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    max_output_tokens: Annotated[int, Meta(ge=1, le=MAX_TOKENS)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    metadata: Metadata | None = None
    previous_response_id: str | None = None
    folkmoot: Own | None = None


class OutputText(Struct, frozen=True):
    """The text of the answer."""

    type: Literal["output_text"]
    text: str
    annotations: tuple[str, ...] = ()
    logprobs: tuple[str, ...] = ()


class OutputMessage(Struct, frozen=True):
    """The one item of a response's output."""

    id: str
    type: Literal["message"]
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"]
    content: tuple[OutputText, ...]


class ResponseUsage(Struct, frozen=True):
    """The true sum over all jobs of the prompt."""

    input_tokens: Count
    input_tokens_details: PromptTokensDetails
    output_tokens: Count
    output_tokens_details: CompletionTokensDetails
    total_tokens: Count


class ResponseFault(Struct, frozen=True):
    """Why a response failed; `code` is an error's code."""

    code: str
    message: str


class Incomplete(Struct, frozen=True):
    """Why an answer is not whole."""

    reason: Literal["max_output_tokens"]


class TextFormat(Struct, frozen=True):
    """The one format that is written."""

    type: Literal["text"] = "text"


class TextConfig(Struct, frozen=True):
    """How the text of an answer is formed."""

    format: TextFormat = TextFormat()


class Response(Struct, frozen=True):
    """A response, ended or not; `folkmoot` is how its answer came to be."""

    id: str
    object: Literal["response"]
    created_at: int
    status: Status
    model: str
    background: bool
    store: bool
    instructions: str | None = None
    max_output_tokens: int | None = None
    metadata: dict[str, str] = {}
    temperature: float | None = None
    top_p: float | None = None
    output: tuple[OutputMessage, ...] = ()
    usage: ResponseUsage | None = None
    error: ResponseFault | None = None
    incomplete_details: Incomplete | None = None
    completed_at: int | None = None
    previous_response_id: None = None
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: tuple[str, ...] = ()
    truncation: Literal["disabled"] = "disabled"
    text: TextConfig = TextConfig()
    folkmoot: Answer | UnsetType = UNSET


class Deleted(Struct, frozen=True):
    """Body of `DELETE /v1/responses/{id}`."""

    id: str
    object: Literal["response.deleted"]
    deleted: bool


class ResponseEvent(Struct, frozen=True, tag_field="type"):
    """One event of a streamed response (never sent itself); its name is its `type`."""

    sequence_number: int


class WholeEvent(ResponseEvent, frozen=True):
    """An event that carries the response as it is then (never sent itself)."""

    response: Response


class Created(WholeEvent, frozen=True, tag="response.created"):
    """The response is begun."""


class InProgress(WholeEvent, frozen=True, tag="response.in_progress"):
    """The moot is at work."""


class Completed(WholeEvent, frozen=True, tag="response.completed"):
    """The end: the answer is whole."""


class CutShort(WholeEvent, frozen=True, tag="response.incomplete"):
    """The end: the answer has reached its limit of tokens."""


class Failed(WholeEvent, frozen=True, tag="response.failed"):
    """The end: there is no answer, or it broke off."""


class ItemAdded(ResponseEvent, frozen=True, tag="response.output_item.added"):
    """The answer begins."""

    output_index: int
    item: OutputMessage


class PartAdded(ResponseEvent, frozen=True, tag="response.content_part.added"):
    """The answer's text begins."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class TextDelta(ResponseEvent, frozen=True, tag="response.output_text.delta"):
    """The next words of the answer."""

    item_id: str
    output_index: int
    content_index: int
    delta: str
    logprobs: tuple[str, ...] = ()


class TextDone(ResponseEvent, frozen=True, tag="response.output_text.done"):
    """The answer's text is whole."""

    item_id: str
    output_index: int
    content_index: int
    text: str
    logprobs: tuple[str, ...] = ()


class PartDone(ResponseEvent, frozen=True, tag="response.content_part.done"):
    """The answer's text is whole; here it is."""

    item_id: str
    output_index: int
    content_index: int
    part: OutputText


class ItemDone(ResponseEvent, frozen=True, tag="response.output_item.done"):
    """The answer is whole; here it is."""

    output_index: int
    item: OutputMessage


Event = (
    Created
    | InProgress
    | ItemAdded
    | PartAdded
    | TextDelta
    | TextDone
    | PartDone
    | ItemDone
    | Completed
    | CutShort
    | Failed
)
