"""`/v1/responses`: OpenAI's newer way to ask, whole, streamed, or in the background to be fetched later."""

from __future__ import annotations

import hashlib
import time
from contextlib import aclosing

import msgspec
from starlette.requests import Request
from starlette.responses import Response as Body
from starlette.types import Receive, Scope, Send

from folkmoot.api.desk import Kept
from folkmoot.api.faults import FieldInvalid, error_response, failure_response, retry_headers
from folkmoot.api.guard import bearer, is_owner
from folkmoot.api.response_schema import (
    Completed,
    Created,
    CutShort,
    Deleted,
    Event,
    Failed,
    InProgress,
    ItemAdded,
    ItemDone,
    OutputText,
    PartAdded,
    PartDone,
    Response,
    ResponseRequest,
    TextDelta,
    TextDone,
)
from folkmoot.api.room import Room, hops_of, key_of, read_body, room_of
from folkmoot.api.stream import EventWriter, unless_gone
from folkmoot.api.translate import decode, prompt_of
from folkmoot.api.written import begun, cancelled, chat_of, ended, failed, message_of
from folkmoot.core.events import AnswerText, Prompt, PromptAnswered, PromptFailed
from folkmoot.errors import FolkmootError, JournalError

JSON = "application/json"
_LAST: dict[str, type[Completed | CutShort | Failed]] = {
    "completed": Completed,
    "incomplete": CutShort,
    "failed": Failed,
}
MAX_RETRY_KEY = 256
"""Characters of an Idempotency-Key (guess)."""


async def create_response(request: Request) -> Body | Reply:
    """Parse and check the request; in the background it is journalled, otherwise the reply runs the prompt."""
    room = room_of(request)
    asked = decode(await read_body(request), ResponseRequest)
    kept = Kept(asked, hops_of(request), key_of(request))
    prompt = prompt_of(
        chat_of(asked), room.moot.new_prompt_id(), kept.hops, room.moot.status(), room.config, kept.key
    )
    if not asked.background:
        return Reply(room, prompt, kept, owner_of(request))
    retry_key = request.headers.get("idempotency-key", "")
    if len(retry_key) > MAX_RETRY_KEY:
        raise FieldInvalid(f"Idempotency-Key has more than {MAX_RETRY_KEY} characters", "Idempotency-Key")
    return Body(await room.desk.accept(kept, owner_of(request), retry_key), media_type=JSON)


async def get_response(request: Request) -> Body:
    """One response as it stands."""
    name = request.path_params["response"]
    return Body(await room_of(request).desk.fetch(name, owner_of(request)), media_type=JSON)


async def cancel_response(request: Request) -> Body:
    """End a response in the background: every job of it is cancelled everywhere."""
    name = request.path_params["response"]
    return Body(await room_of(request).desk.cancel(name, owner_of(request)), media_type=JSON)


async def delete_response(request: Request) -> Body:
    """Delete a response, what was asked and what was answered."""
    name = request.path_params["response"]
    await room_of(request).desk.forget(name, owner_of(request))
    return Body(msgspec.json.encode(Deleted(name, "response.deleted", True)), media_type=JSON)


def owner_of(request: Request) -> str | None:
    """Whose a request's responses are: a digest of its key; None for the device's owner, who sees them all."""
    room = room_of(request)
    token = bearer(request.headers)
    keyed = room.config.keys or key_of(request) is not None
    if not keyed or token is None or is_owner(request.headers, room.control):
        return None
    return hashlib.sha256(b"folkmoot response owner\0" + token).hexdigest()


class Reply:
    """An ASGI response that asks the moot, and takes the prompt back when its client goes away."""

    def __init__(self, room: Room, prompt: Prompt, kept: Kept, owner: str | None) -> None:
        self._room = room
        self._prompt = prompt
        self._kept = kept
        self._owner = owner
        own = kept.asked.folkmoot
        self._proposals = bool(own and own.proposals)
        self._response = begun(room.desk.draw_id(), time.time(), kept.asked)
        self._told = 0
        self._ended = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the prompt for as long as its client listens."""
        run = self._stream if self._prompt.stream else self._whole
        await unless_gone(receive, run(scope, receive, send))
        if self._told and not self._ended:
            await self._keep(cancelled(self._response, time.time()))

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = self._refused("internal", "the moot ended the prompt without an answer")
        try:
            async with aclosing(self._room.moot.ask(self._prompt)) as notices:
                async for notice in notices:
                    if isinstance(notice, PromptAnswered):
                        ending = await self._keep(self._answered(notice))
                        reply = Body(msgspec.json.encode(ending), media_type=JSON)
                    elif isinstance(notice, PromptFailed):
                        reply = self._refused(notice.code, notice.detail, notice.retry_s)
        except FolkmootError as error:
            reply = error_response(error, self._room.moot.status())
        await reply(scope, receive, send)

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Tell what comes as it comes. What fails before the first event becomes an HTTP status."""
        fault = PromptFailed(self._prompt.id, "internal", "the moot ended the prompt without an answer")
        ending: Response | None = None
        async with EventWriter(send, self._room.config.keep_alive_s) as writer:
            try:
                async with aclosing(self._room.moot.ask(self._prompt)) as notices:
                    async for notice in notices:
                        if isinstance(notice, PromptFailed):
                            fault = notice
                        elif isinstance(notice, PromptAnswered):
                            ending = self._answered(notice)
                        elif isinstance(notice, AnswerText):
                            await self._tell(notice.text, writer)
            except FolkmootError as error:
                fault = PromptFailed(self._prompt.id, error.code, str(error))
            if ending is None and writer.started:
                ending = failed(self._response, fault.code, fault.detail, time.time())
            if ending is not None:
                await self._close(await self._keep(ending), writer)
                await writer.finish()
        if ending is None:
            await self._refused(fault.code, fault.detail, fault.retry_s)(scope, receive, send)

    async def _tell(self, text: str, writer: EventWriter) -> None:
        await self._open(writer)
        item = message_of(self._response, "in_progress").id
        await self._event(TextDelta(self._number(), item, 0, 0, text), writer)

    async def _open(self, writer: EventWriter) -> None:
        if self._told:
            return
        await self._event(Created(self._number(), self._response), writer)
        await self._event(InProgress(self._number(), self._response), writer)
        item = message_of(self._response, "in_progress")
        await self._event(ItemAdded(self._number(), 0, item), writer)
        await self._event(PartAdded(self._number(), item.id, 0, 0, OutputText("output_text", "")), writer)

    async def _close(self, ending: Response, writer: EventWriter) -> None:
        await self._open(writer)
        if ending.output:
            [item] = ending.output
            [part] = item.content
            await self._event(TextDone(self._number(), item.id, 0, 0, part.text), writer)
            await self._event(PartDone(self._number(), item.id, 0, 0, part), writer)
            await self._event(ItemDone(self._number(), 0, item), writer)
        await self._event(_LAST[ending.status](self._number(), ending), writer)

    async def _keep(self, ending: Response) -> Response:
        """Put an end on disk before it is told, where it is to be kept; what is told says whether it is."""
        self._ended = True
        if not ending.store:
            return ending
        try:
            await self._room.desk.record(self._kept, self._owner, ending)
        except JournalError:
            return msgspec.structs.replace(
                ending, store=False
            )  # the log says why, and the answer is worth more
        return ending

    def _answered(self, end: PromptAnswered) -> Response:
        return ended(self._response, end, time.time(), proposals=self._proposals)

    def _refused(self, code: str, detail: str, retry_s: float = 0.0) -> Body:
        headers = retry_headers(code, self._room.moot.status(), retry_s)
        return failure_response(code, detail, headers=headers)

    async def _event(self, event: Event, writer: EventWriter) -> None:
        name = str(type(event).__struct_config__.tag)
        await writer.event(msgspec.json.encode(event), name)

    def _number(self) -> int:
        self._told += 1
        return self._told - 1
