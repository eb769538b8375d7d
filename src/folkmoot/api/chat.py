"""`POST /v1/chat/completions`: one prompt, answered whole or as it is written."""

from __future__ import annotations

import time
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from folkmoot.api.faults import error_response, failure_response, retry_headers
from folkmoot.api.notices import progress_of
from folkmoot.api.room import Room, hops_of, key_of, read_body, room_of
from folkmoot.api.schema import (
    Answer,
    AnswerMessage,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Choice,
    ChunkChoice,
    Delta,
    FinishReason,
    Usage,
)
from folkmoot.api.stream import EventWriter, unless_gone
from folkmoot.api.translate import answer_of, decode, prompt_of
from folkmoot.core.events import AnswerText, Notice, Prompt, PromptAnswered, PromptFailed
from folkmoot.errors import FolkmootError

PROGRESS = "folkmoot.progress"


async def complete_chat(request: Request) -> Reply:
    """Parse and check the request; the reply then runs the prompt."""
    room = room_of(request)
    asked = decode(await read_body(request), ChatRequest)
    prompt = prompt_of(
        asked, room.moot.new_prompt_id(), hops_of(request), room.moot.status(), room.config, key_of(request)
    )
    return Reply(room, prompt, asked)


class Reply:
    """An ASGI response that asks the moot, and takes the prompt back when its client goes away."""

    def __init__(self, room: Room, prompt: Prompt, asked: ChatRequest) -> None:
        self._room = room
        self._prompt = prompt
        self._model = asked.model
        self._progress = bool(asked.folkmoot and asked.folkmoot.progress)
        self._proposals = bool(asked.folkmoot and asked.folkmoot.proposals)
        self._usage = bool(asked.stream_options and asked.stream_options.include_usage)
        self._created = int(time.time())
        self._opened = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the prompt for as long as its client listens."""
        run = self._stream if self._prompt.stream else self._whole
        await unless_gone(receive, run(scope, receive, send))

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._refused("internal", "the moot ended the prompt without an answer")
        try:
            async with aclosing(self._room.moot.ask(self._prompt)) as notices:
                async for notice in notices:
                    if isinstance(notice, PromptAnswered):
                        response = Response(self._completion(notice), media_type="application/json")
                    elif isinstance(notice, PromptFailed):
                        response = self._refused(notice.code, notice.detail, notice.retry_s)
        except FolkmootError as error:
            response = error_response(error, self._room.moot.status())
        await response(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what comes as it comes. What fails before the first event becomes an HTTP status."""
        fault: Response | None = self._refused("internal", "the moot ended the prompt without an answer")
        async with EventWriter(send, self._room.config.keep_alive_s) as writer:
            try:
                async with aclosing(self._room.moot.ask(self._prompt)) as notices:
                    async for notice in notices:
                        if isinstance(notice, PromptFailed):
                            fault = self._refused(notice.code, notice.detail, notice.retry_s)
                        elif isinstance(notice, PromptAnswered):
                            await self._close(notice, writer)
                            fault = None
                        else:
                            await self._tell(notice, writer)
            except FolkmootError as error:
                fault = error_response(error, self._room.moot.status())
            if fault is not None and writer.started:
                await writer.event(bytes(fault.body))
                fault = None
            if writer.started:
                await writer.finish()
        if fault is not None:
            await fault(scope, receive, send)

    async def _tell(self, notice: Notice, writer: EventWriter) -> None:
        if isinstance(notice, AnswerText):
            await self._open(writer)
            await writer.event(self._chunk(Delta(content=notice.text)))
        elif self._progress and (progress := progress_of(notice)) is not None:
            await writer.event(msgspec.json.encode(progress), PROGRESS)

    async def _open(self, writer: EventWriter) -> None:
        if not self._opened:
            self._opened = True
            await writer.event(self._chunk(Delta(role="assistant", content="")))

    async def _close(self, end: PromptAnswered, writer: EventWriter) -> None:
        await self._open(writer)
        answer, usage = answer_of(end, self._proposals)
        await writer.event(self._chunk(Delta(), _finish(end), answer))
        if self._usage:
            await writer.event(self._chunk(None, usage=usage))
        await writer.event(b"[DONE]")

    def _chunk(
        self,
        delta: Delta | None,
        finish: FinishReason | None = None,
        answer: Answer | None = None,
        usage: Usage | None = None,
    ) -> bytes:
        chunk = ChatChunk(
            id=f"chatcmpl-{self._prompt.id}",
            object="chat.completion.chunk",
            created=self._created,
            model=self._model,
            choices=() if delta is None else (ChunkChoice(0, delta, finish),),
            usage=usage if self._usage else msgspec.UNSET,
            folkmoot=answer or msgspec.UNSET,
        )
        return msgspec.json.encode(chunk)

    def _completion(self, end: PromptAnswered) -> bytes:
        answer, usage = answer_of(end, self._proposals)
        completion = ChatCompletion(
            id=f"chatcmpl-{self._prompt.id}",
            object="chat.completion",
            created=self._created,
            model=self._model,
            choices=(Choice(0, AnswerMessage("assistant", end.answer), _finish(end)),),
            usage=usage,
            folkmoot=answer,
        )
        return msgspec.json.encode(completion)

    def _refused(self, code: str, detail: str, retry_s: float = 0.0) -> Response:
        headers = retry_headers(code, self._room.moot.status(), retry_s)
        return failure_response(code, detail, headers=headers)


def _finish(end: PromptAnswered) -> FinishReason:
    return "length" if end.truncated else "stop"
