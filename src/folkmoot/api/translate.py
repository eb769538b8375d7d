"""Between OpenAI's schema and the core: `prompt_of` goes in, `answer_of` comes out."""

from __future__ import annotations

import re
from typing import Any, TypeVar

import msgspec

from folkmoot.api.config import ApiConfig
from folkmoot.api.faults import FieldInvalid
from folkmoot.api.models import parameters
from folkmoot.api.notices import job_rows
from folkmoot.api.privacy import rule_of
from folkmoot.api.schema import (
    Answer,
    ChatRequest,
    CompletionTokensDetails,
    Message,
    Own,
    OwnUsage,
    PromptTokensDetails,
    Usage,
)
from folkmoot.core.events import Plan, Prompt, PromptAnswered
from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Layout, Sampling, Turn
from folkmoot.node.service import Status

T = TypeVar("T")

_PART = re.compile(r"(?:messages|input)\[\d+\]\.content\[\d+\]\.type")
"""Where the kind of a message's part stands."""
_HALF = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F]"
)
"""Half of a surrogate pair, as JSON escapes it."""


def decode(body: bytes, kind: type[T]) -> T:
    """A request's body as `kind`. Raises `FieldInvalid`, which names the field."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise _field_error(str(error), kind) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        if _HALF.search(body):
            raise FieldInvalid(
                "a text of the body holds half of a surrogate pair (\\ud800 to \\udfff); send its character whole"
            ) from None
        raise FieldInvalid(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise FieldInvalid("the body is nested too deeply") from None


def prompt_of(
    asked: ChatRequest, prompt: PromptId, hops: int, status: Status, config: ApiConfig, key: str | None
) -> Prompt:
    """A chat request as a prompt; `hops` counts the moots that it has crossed, `key` is the name of its API key.

    Raises `FieldInvalid`, `UnknownModel`.
    """
    base = parameters(asked.model, status, config.presets)
    if asked.messages[-1].role != "user":
        raise FieldInvalid("messages: the last message must be the user's", "messages")
    conversation = tuple(_turn(message) for message in asked.messages)
    if not conversation[-1].content.strip():
        raise FieldInvalid("messages: the last message is empty; write what you want to know", "messages")
    rule = rule_of(config.privacy, asked.model, key, conversation)
    plan = plan_of(_merged(base, asked.folkmoot or Own()), rule)
    stop = (asked.stop,) if isinstance(asked.stop, str) else tuple(asked.stop or ())
    sampling = Sampling(
        max_tokens=asked.max_completion_tokens or asked.max_tokens or config.max_tokens,
        temperature=0.7 if asked.temperature is None else asked.temperature,
        top_p=1.0 if asked.top_p is None else asked.top_p,
        seed=asked.seed,
        stop=stop,
    )
    return Prompt(prompt, conversation, plan, sampling, stream=bool(asked.stream), hops=hops)


def plan_of(own: Own, rule: str = "") -> Plan:
    """Own parameters as a plan; giving M or k means `fixed`. Raises `FieldInvalid`.

    `rule` is what of the configuration keeps the prompt on this device, if anything does.
    """
    how, _, what = (own.select or "uniform").partition(":")
    named = tuple(what.split("+")) if how == "fixed" else ()
    best_of = int(what) if how == "best-of" else 0
    shaped = own.layers is not None or own.proposers is not None or bool(named)
    rule = "" if own.private else rule
    private = bool(own.private or rule)
    mode = own.mode or ("local" if private else "fixed" if shaped else "auto")
    mode = "local" if rule and mode == "auto" else mode
    if private:
        _check_private(own, mode, rule)
    for name in ("keep", "early_stop"):
        if getattr(own, name) and (mode != "fixed" or own.layers == 0):
            raise _own(
                name,
                "a judge is asked about fixed layers alone; give layers of 1 or more and proposers with it, "
                "and not mode auto, mode local or private",
            )
    if mode == "local":
        if own.layers or own.proposers or named or best_of:
            raise _own("mode", "local asks no peer; leave layers, proposers and select out")
        return Plan("local", 0, 0, deadline_s=own.deadline_s, private=private, rule=rule)
    if mode == "auto" and shaped:
        raise _own(
            "mode", "auto chooses M and k itself; leave layers, proposers and select out, or say fixed"
        )
    layers = 1 if own.layers is None else own.layers
    proposers = own.proposers if own.proposers is not None else len(named) or None
    if layers == 0:
        if proposers:
            raise _own("proposers", f"is {proposers} with 0 layers, which ask no peer; give layers >= 1")
        proposers = 0
    if named and (len(set(named)) != len(named) or "" in named):
        raise _own("select", f"{own.select!r} must name each peer once, as fixed:NAME+NAME")
    if named and proposers != len(named):
        raise _own("select", f"names {len(named)} peers, but proposers is {proposers}")
    if best_of and proposers is not None and best_of < proposers:
        raise _own("select", f"draws {best_of} peers, but proposers is {proposers}; draw as many at least")
    if own.quorum is not None and proposers is not None and own.quorum > proposers + 1:
        raise _own("quorum", f"is {own.quorum}, but only {proposers + 1} devices answer in a layer")
    if own.keep is not None and proposers is not None and own.keep > proposers + 1:
        raise _own("keep", f"is {own.keep}, but a layer has only {proposers + 1} answers")
    return Plan(
        mode=mode,
        layers=layers,
        proposers=proposers,
        select=named,
        best_of=best_of,
        aggregator=own.aggregator or "origin",
        quorum=own.quorum or 0,
        deadline_s=own.deadline_s,
        layout=Layout(own.layout or Layout.SHARED_PREFIX),
        keep=own.keep or 0,
        early_stop=bool(own.early_stop),
    )


def answer_of(end: PromptAnswered, proposals: bool) -> tuple[Answer, Usage]:
    """A finished prompt as its provenance, with `proposals` or without, and the true sum of tokens over all its jobs."""
    how, final = end.provenance, end.usage
    answer = Answer(
        id=how.id,
        answer=end.answer,
        mode=how.mode,
        layers=how.layers,
        proposers=how.proposers,
        latency_s=how.latency_s,
        first_token_s=how.first_token_s,
        origin=how.origin,
        devices=how.devices,
        jobs=job_rows(how, texts=proposals),
        rounds=how.rounds,
        decisions=how.decisions,
        final=OwnUsage(final.tokens_in, final.tokens_cached, final.tokens_out),
    )
    tokens_in = sum(job.tokens_in for job in how.jobs)
    tokens_out = sum(job.tokens_out for job in how.jobs)
    usage = Usage(
        prompt_tokens=tokens_in,
        completion_tokens=tokens_out,
        total_tokens=tokens_in + tokens_out,
        prompt_tokens_details=PromptTokensDetails(sum(job.tokens_cached for job in how.jobs)),
        completion_tokens_details=CompletionTokensDetails(
            answer_tokens=final.tokens_out, reasoning_tokens=max(0, tokens_out - final.tokens_out)
        ),
    )
    return answer, usage


def _turn(message: Message) -> Turn:
    role = "system" if message.role == "developer" else message.role
    if isinstance(message.content, str):
        return Turn(role, message.content)
    return Turn(role, "\n".join(part.text for part in message.content))


def _merged(base: Own, over: Own) -> Own:
    given = {name: value for name in Own.__struct_fields__ if (value := getattr(over, name)) is not None}
    return msgspec.structs.replace(base, **given)


def _check_private(own: Own, mode: str, rule: str) -> None:
    asks = own.layers or own.proposers or own.select not in (None, "uniform")
    if mode != "local" or asks or own.aggregator not in (None, "origin"):
        why = "keeps the prompt on this device, so no peer can be asked and none can aggregate"
        if rule:
            raise FieldInvalid(
                f"{rule} {why}; ask `local`, or leave layers, proposers, select and aggregator out"
            )
        raise _own("private", why)


def _own(name: str, message: str) -> FieldInvalid:
    return FieldInvalid(f"folkmoot.{name}: {message}", f"folkmoot.{name}")


def _field_error(message: str, kind: Any) -> FieldInvalid:
    """msgspec's words about a `kind` as an error that names the field: `Expected …, got … - at `$.a.b``."""
    what, _, where = message.partition(" - at `")
    path = where.rstrip("`").removeprefix("$").removeprefix(".")
    if missing := re.match(r"Object missing required field `(\w+)`", what):
        path = f"{path}.{missing[1]}" if path else missing[1]
        what = "is required"
    if unknown := re.fullmatch(r"Invalid enum value (.*)", what, re.DOTALL):
        what = f"{unknown[1]} is none of {', '.join(_words(kind, path))}"
        if _PART.fullmatch(path):
            what += "; only text can be read, so leave images, audio and files out"
    return FieldInvalid(f"{path}: {what}" if path else what, path or None)


def _words(kind: Any, path: str) -> list[str]:
    """What may stand at a path of a body, as in `messages[0].role`, where that is one of a few words."""
    found = [msgspec.inspect.type_info(kind)]
    for name, item in re.findall(r"(\w+)|(\[)", re.sub(r"\[[^\]]*\]", "[", path)):
        flat = [one for each in found for one in _kinds(each)]
        if item:
            found = [one.item_type for one in flat if isinstance(one, msgspec.inspect.ListType)]
        else:
            structs = [one for one in flat if isinstance(one, msgspec.inspect.StructType)]
            found = [field.type for one in structs for field in one.fields if field.encode_name == name]
    literals = [one for each in found for one in _kinds(each) if isinstance(one, msgspec.inspect.LiteralType)]
    return [str(word) for one in literals for word in one.values]


def _kinds(kind: msgspec.inspect.Type) -> tuple[msgspec.inspect.Type, ...]:
    return kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
