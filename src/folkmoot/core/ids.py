"""Names of devices, prompts and jobs, and how the last two are drawn."""

from __future__ import annotations

from random import Random
from typing import NewType

DeviceId = NewType("DeviceId", str)
"""A device's public key, 64 lower-case hexadecimal digits (in the virtual world: any short string)."""

PromptId = NewType("PromptId", str)
"""128 random bits, 32 lower-case hexadecimal digits."""

JobId = NewType("JobId", str)
"""`PROMPT.LAYER.SLOT.TRY`: unique in the moot, since its prompt is."""


def draw_prompt_id(rng: Random) -> PromptId:
    """A fresh prompt id from the injected generator."""
    return PromptId(f"{rng.getrandbits(128):032x}")


def job_id(prompt: PromptId, layer: int, slot: int, attempt: int = 0) -> JobId:
    """The id of a prompt's job: `layer` 1..M, M + 1 for the aggregation; `slot` 0 is the origin's own."""
    return JobId(f"{prompt}.{layer}.{slot}.{attempt}")


def prompt_of(job: JobId) -> PromptId:
    """The prompt that a job belongs to."""
    return PromptId(job.partition(".")[0])
