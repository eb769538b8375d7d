"""Every route with all it can send: the app and its OpenAPI document are both made from this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.types import ASGIApp

from folkmoot.api import chat, responses, views
from folkmoot.api.response_schema import Deleted, Event, Response, ResponseRequest
from folkmoot.api.schema import (
    Banned,
    BanRequest,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Failure,
    Forgotten,
    Happening,
    Health,
    Invitation,
    InvitationRequest,
    Model,
    ModelList,
    MootStatus,
    Rotated,
    RotationRequest,
)

Endpoint = Callable[[Request], Awaitable[ASGIApp]]
JSON = "application/json"
SSE = "text/event-stream"


@dataclass(frozen=True, slots=True)
class Spec:
    """One route. `answers`: status -> content type -> type of the body (of an event's data in a stream)."""

    method: str
    path: str
    endpoint: Endpoint
    summary: str
    answers: dict[int, dict[str, Any]]
    body: Any = None
    faults: tuple[int, ...] = ()
    keyed: bool = True
    parameters: tuple[dict[str, Any], ...] = field(default=())

    def responses(self) -> dict[int, dict[str, Any]]:
        """Every status that this route can send, with the guard's and the server's own."""
        own = {403, 500} | ({401, 429} if self.keyed else set()) | ({400, 413} if self.body else set())
        failures = {status: {JSON: Failure} for status in sorted(own | set(self.faults))}
        return dict(sorted((failures | self.answers).items()))


HOPS = {
    "name": "X-Folkmoot-Hops",
    "in": "header",
    "required": False,
    "description": "Moots that the request has crossed; from 1 on its own engine alone answers.",
    "schema": {"type": "integer", "minimum": 0, "maximum": 9999},
}
LIMIT = {
    "name": "limit",
    "in": "query",
    "required": False,
    "description": "End the stream after so many events.",
    "schema": {"type": "integer", "minimum": 1, "maximum": 10**9},
}
RETRY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "In the background: the same key and request give the same response, however often it is sent.",
    "schema": {"type": "string", "maxLength": 256},
}
RESPONSE = {"name": "response", "in": "path", "required": True, "schema": {"type": "string"}}
MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string"}}

ROUTES = (
    Spec("GET", "/v1/models", views.list_models, "What may stand in a request's model", {200: {JSON: ModelList}}),
    Spec(
        "GET", "/v1/models/{model}", views.get_model, "One model",
        {200: {JSON: Model}}, faults=(400, 404), parameters=(MODEL,),
    ),
    Spec(
        "POST", "/v1/chat/completions", chat.complete_chat, "Ask the moot, stream or whole",
        {200: {JSON: ChatCompletion, SSE: ChatChunk}},
        body=ChatRequest, faults=(404, 429, 503, 504), parameters=(HOPS,),
    ),
    Spec(
        "POST", "/v1/responses", responses.create_response, "Ask the moot, stream, whole or in the background",
        {200: {JSON: Response, SSE: Event}},
        body=ResponseRequest, faults=(404, 429, 503, 504, 507), parameters=(HOPS, RETRY),
    ),
    Spec(
        "GET", "/v1/responses/{response}", responses.get_response, "A response as it stands",
        {200: {JSON: Response}}, faults=(404, 503), parameters=(RESPONSE,),
    ),
    Spec(
        "POST", "/v1/responses/{response}/cancel", responses.cancel_response, "End a response in the background",
        {200: {JSON: Response}}, faults=(400, 404, 503, 507), parameters=(RESPONSE,),
    ),
    Spec(
        "DELETE", "/v1/responses/{response}", responses.delete_response, "Delete a response",
        {200: {JSON: Deleted}}, faults=(404, 503, 507), parameters=(RESPONSE,),
    ),
    Spec(
        "DELETE", "/v1/responses", views.forget_responses, "Delete every response (owner only)",
        {200: {JSON: Forgotten}}, faults=(503, 507),
    ),
    Spec("GET", "/v1/moot", views.get_moot, "The moot as this device sees it", {200: {JSON: MootStatus}}),
    Spec(
        "GET", "/v1/moot/events", views.watch_moot, "What happens on this device from now on",
        {200: {SSE: Happening}}, faults=(400,), parameters=(LIMIT,),
    ),
    Spec(
        "POST", "/v1/moot/invitations", views.create_invitation, "Invite devices (owner only)",
        {201: {JSON: Invitation}}, body=InvitationRequest,
    ),
    Spec(
        "POST", "/v1/moot/bans", views.ban_member, "Ban a device from the moot (founder's owner only)",
        {201: {JSON: Banned}}, body=BanRequest, faults=(404,),
    ),
    Spec(
        "POST", "/v1/moot/rotations", views.rotate_root, "Change the moot's root key (founder's owner only)",
        {201: {JSON: Rotated}}, body=RotationRequest,
    ),
    Spec(
        "GET", "/healthz", views.get_health, "Whether prompts can be served",
        {200: {JSON: Health}, 503: {JSON: Health}}, keyed=False,
    ),
)  # fmt: skip
