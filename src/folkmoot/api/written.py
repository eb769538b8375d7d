"""Between `/v1/responses` and the chat schema: `chat_of` goes in, `ended` and `failed` come out."""

from __future__ import annotations

from typing import Literal

import msgspec

from folkmoot.api.faults import FieldInvalid
from folkmoot.api.response_schema import (
    Incomplete,
    InputMessage,
    OutputMessage,
    OutputText,
    Response,
    ResponseFault,
    ResponseRequest,
    ResponseUsage,
)
from folkmoot.api.schema import ChatRequest, Message, TextPart
from folkmoot.api.translate import answer_of
from folkmoot.core.events import PromptAnswered

PREFIX = "resp_"


def chat_of(asked: ResponseRequest) -> ChatRequest:
    """The same prompt as a chat. Raises `FieldInvalid`."""
    if asked.previous_response_id is not None:
        raise FieldInvalid(
            "previous_response_id: answers are not chained here; send the whole conversation as input",
            "previous_response_id",
        )
    if asked.background and asked.stream:
        raise FieldInvalid(
            "stream: an answer in the background is fetched with GET /v1/responses/{id}; leave stream out",
            "stream",
        )
    if asked.background and asked.store is False:
        raise FieldInvalid(
            "store: an answer in the background is kept until it is fetched; leave store out", "store"
        )
    given = [InputMessage("user", asked.input)] if isinstance(asked.input, str) else asked.input
    if given[-1].role != "user":
        raise FieldInvalid("input: the last message must be the user's", "input")
    messages = [_message(each) for each in given]
    if _is_empty(messages[-1]):
        raise FieldInvalid("input: the last message is empty; write what you want to know", "input")
    if asked.instructions:
        messages.insert(0, Message("system", asked.instructions))
    return ChatRequest(
        model=asked.model,
        messages=messages,
        stream=asked.stream,
        max_tokens=asked.max_output_tokens,
        temperature=asked.temperature,
        top_p=asked.top_p,
        folkmoot=asked.folkmoot,
    )


def begun(name: str, created: float, asked: ResponseRequest) -> Response:
    """A response that has not ended: in the background it is queued. `created` in seconds since 1970."""
    return Response(
        id=name,
        object="response",
        created_at=int(created),
        status="queued" if asked.background else "in_progress",
        model=asked.model,
        background=bool(asked.background),
        store=asked.store is not False,
        instructions=asked.instructions,
        max_output_tokens=asked.max_output_tokens,
        metadata=asked.metadata or {},
        temperature=asked.temperature,
        top_p=asked.top_p,
    )


def ended(response: Response, end: PromptAnswered, now: float, *, proposals: bool) -> Response:
    """The response with its answer, with the proposals' texts or without."""
    answer, usage = answer_of(end, proposals)
    status: Literal["incomplete", "completed"] = "incomplete" if end.truncated else "completed"
    return msgspec.structs.replace(
        response,
        status=status,
        completed_at=int(now),
        output=(message_of(response, status, end.answer),),
        usage=ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=usage.prompt_tokens_details,
            output_tokens=usage.completion_tokens,
            output_tokens_details=usage.completion_tokens_details,
            total_tokens=usage.total_tokens,
        ),
        incomplete_details=Incomplete("max_output_tokens") if end.truncated else None,
        folkmoot=answer,
    )


def failed(response: Response, code: str, message: str, now: float) -> Response:
    """The response as it ends without an answer."""
    return msgspec.structs.replace(
        response, status="failed", completed_at=int(now), error=ResponseFault(code, message)
    )


def cancelled(response: Response, now: float) -> Response:
    """The response as it ends where its user takes it back."""
    return msgspec.structs.replace(response, status="cancelled", completed_at=int(now))


def message_of(
    response: Response, status: Literal["in_progress", "incomplete", "completed"], *texts: str
) -> OutputMessage:
    """The one item of a response's output, with no text or one."""
    content = tuple(OutputText("output_text", text) for text in texts)
    return OutputMessage(f"msg_{response.id.removeprefix(PREFIX)}", "message", status, "assistant", content)


def _message(given: InputMessage) -> Message:
    if isinstance(given.content, str):
        return Message(given.role, given.content)
    return Message(given.role, [TextPart("text", part.text) for part in given.content])


def _is_empty(message: Message) -> bool:
    parts = [message.content] if isinstance(message.content, str) else [part.text for part in message.content]
    return not "".join(parts).strip()
