"""From an error's code to an HTTP status and OpenAI's error object: one table."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
from starlette.responses import Response

from folkmoot import errors
from folkmoot.api.schema import Failure, Fault
from folkmoot.node.service import Status

OWN: dict[str, tuple[int, str]] = {
    "no_key": (401, "The API needs a key, and the request bears none."),
    "wrong_key": (403, "The API does not know the request's key; it may have been revoked."),
    "key_limit": (429, "The key has as many requests under way, or has sent as many in a minute, as it may."),
    "foreign": (
        403,
        "The request's `Host` or `Origin` header names another site, which may not use this API.",
    ),
    "not_found": (404, "Nothing is at that path, or no response of that id is kept for whoever asks."),
    "wrong_method": (405, "The path takes other methods; the header `Allow` names them."),
    "body_too_large": (413, "The request's body is larger than the API reads."),
    "internal": (500, "A bug in Folkmoot; the device's log says more."),
}
"""What the API says by itself: status and meaning by code."""

STATUS: dict[str, int] = {
    errors.PromptInvalid.code: 400,
    errors.AdmissionError.code: 403,
    errors.UnknownModel.code: 404,
    errors.PromptTooLong.code: 413,
    errors.Overloaded.code: 429,
    errors.BudgetSpent.code: 429,
    errors.NoDevice.code: 503,
    errors.PromptCancelled.code: 503,
    errors.DeadlinePassed.code: 504,
    errors.WaitedTooLong.code: 504,
    errors.EngineError.code: 500,
    errors.EngineUnreachable.code: 500,
    errors.WeightsError.code: 500,
    errors.AnswerCut.code: 500,
    errors.NodeError.code: 500,
    errors.JournalError.code: 503,
    errors.JournalFull.code: 507,
    **{code: status for code, (status, _) in OWN.items()},
}
"""Every code that the API can send. A code that is not here is a bug of ours, and a 500."""

TYPES: dict[int, str] = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


class FieldInvalid(errors.PromptInvalid):
    """A field of a request is wrong; `param` names it."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class BodyTooLarge(errors.PromptTooLong):
    """The request's body is larger than the API reads."""

    code = "body_too_large"


def status_of(code: str) -> int:
    """The HTTP status of an error's code."""
    return STATUS.get(code, 500)


def failure(code: str, message: str, param: str | None = None) -> Failure:
    """OpenAI's error object for an error's code."""
    kind = TYPES.get(status_of(code), "server_error")
    return Failure(Fault(message=message, type=kind, code=code, param=param))


def failure_response(
    code: str, message: str, param: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The HTTP response for an error's code."""
    return Response(
        msgspec.json.encode(failure(code, message, param)),
        status_of(code),
        headers=headers,
        media_type="application/json",
    )


def error_response(error: errors.FolkmootError, status: Status) -> Response:
    """The HTTP response for an error that was raised."""
    param = error.param if isinstance(error, FieldInvalid) else None
    return failure_response(error.code, str(error), param, retry_headers(error.code, status))


def retry_headers(code: str, status: Status, retry_s: float = 0.0) -> dict[str, str]:
    """`Retry-After` for a 429, 1 to 3600 seconds: what the device said, else what it needs for all that it holds."""
    if status_of(code) != 429:
        return {}
    service_s = status.members[0].pulse.service_s if status.members else 0.0
    wait_s = retry_s or (status.queue + status.busy) * service_s
    return {"Retry-After": str(min(3600, max(1, math.ceil(wait_s))))}
