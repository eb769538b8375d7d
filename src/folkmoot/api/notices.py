"""A device's notices as JSON. What is asked and answered stays out of the stream that all may watch."""

from __future__ import annotations

from dataclasses import replace
from typing import assert_never

import msgspec

from folkmoot.api.schema import (
    Accepted,
    Answered,
    Failed,
    Happening,
    Job,
    JobRow,
    MemberRow,
    MemberSeen,
    MootStatus,
    Progress,
    SkillRow,
    StageRow,
    StageTimes,
    Wrote,
)
from folkmoot.core.events import (
    Advanced,
    AnswerText,
    JobProgress,
    MemberChanged,
    Notice,
    PromptAccepted,
    PromptAnswered,
    PromptFailed,
    Provenance,
)
from folkmoot.core.gossip import Member
from folkmoot.core.messages import TOLD
from folkmoot.core.meter import stage_s
from folkmoot.core.skill import SkillClass, tally
from folkmoot.node.service import Status


def progress_of(notice: Notice) -> Progress | None:
    """What an asker who wants progress gets to see of a notice, if anything."""
    match notice:
        case PromptAccepted(prompt, layers, proposers):
            return Accepted(prompt, layers, proposers)
        case JobProgress():
            return Job(
                id=notice.prompt,
                job=notice.job,
                layer=notice.layer,
                stage=notice.stage.value,
                device=notice.device,
                name=notice.name,
                model=notice.model,
                state=notice.state,
                ahead=notice.ahead,
                characters=notice.characters,
            )
        case _:
            return None


def happening_of(notice: Notice) -> Happening | None:
    """A notice as an event of `GET /v1/moot/events`, if it is one: how it goes, never what is said."""
    match notice:
        case PromptAccepted() | JobProgress():
            progress = progress_of(notice)
            assert progress is not None  # both kinds have one
            return progress
        case AnswerText(prompt, text):
            return Wrote(prompt, len(text))
        case PromptAnswered(prompt, _, truncated, usage, how):
            return Answered(prompt, truncated, usage.tokens_out, how.latency_s, job_rows(how))
        case PromptFailed(prompt=prompt, code=code):
            return Failed(prompt, code)
        case MemberChanged(member):
            return MemberSeen(member_row(member))
        case Advanced():
            return None
        case _:
            assert_never(notice)


def job_rows(how: Provenance, *, texts: bool = False) -> tuple[JobRow, ...]:
    """The jobs of a provenance as JSON knows them, with the proposals' texts or without."""
    jobs = how.jobs if texts else [replace(job, text="") for job in how.jobs]
    return tuple(msgspec.convert(job, JobRow, from_attributes=True) for job in jobs)


def member_row(member: Member, doubt: str = "") -> MemberRow:
    """A row of the member list, flat; `doubt` says why its card is not believed."""
    card, pulse = member.card, member.pulse
    limit = card.slots / pulse.service_s if pulse.service_s else None
    return MemberRow(
        id=member.device,
        name=card.name,
        model=card.model,
        standing=member.standing.name.lower(),
        address=card.address,
        context_tokens=card.context_tokens,
        skill=card.skill,
        queue=pulse.queue,
        busy=pulse.busy,
        buffer=pulse.buffer,
        service_s=pulse.service_s,
        stage_s=StageTimes(*(stage_s(pulse.stages, stage) or None for stage in TOLD)),
        load=pulse.load,
        debt=pulse.debt,
        slots=card.slots,
        limit=limit,
        headroom=None if limit is None else limit * (1.0 - pulse.load),
        closed=card.closed,
        skills=tuple(
            SkillRow(skill.value, known.right, known.total)
            for skill in SkillClass
            if (known := tally(card, skill)).total
        ),
        doubt=doubt,
    )


def moot_status(status: Status) -> MootStatus:
    """The moot as this device sees it; whom it bans is shown as banned, whatever is left of it in the member list."""
    banned = set(status.banned)
    doubts = dict(status.doubts)
    rows = [member_row(member, doubts.get(member.device, "")) for member in status.members]
    return MootStatus(
        device=status.device,
        name=status.name,
        moot=status.moot,
        address=status.address,
        engine=status.engine,
        engine_note=status.engine_note,
        model=status.model,
        queue=status.queue,
        busy=status.busy,
        buffer=status.buffer,
        prompts=status.prompts,
        uptime_s=status.uptime_s,
        members=tuple(
            msgspec.structs.replace(row, standing="banned") if row.id in banned else row for row in rows
        ),
        local_only=status.local_only,
        stages=tuple(
            StageRow(
                each.stage,
                each.jobs,
                each.service_s,
                each.tokens_in,
                each.tokens_cached,
                each.tokens_out,
                each.rate_hz,
            )
            for each in status.stages
        ),
        jobs=status.jobs,
        busy_s=status.busy_s,
        banned=status.banned,
    )
