"""Names of prompts and jobs."""

from __future__ import annotations

from itertools import product
from random import Random

from folkmoot.core.ids import PromptId, draw_prompt_id, job_id, prompt_of


def test_prompt_ids_are_128_bits_from_the_generator_that_is_given() -> None:
    rng, again = Random(1), Random(1)
    ids = [draw_prompt_id(rng) for _ in range(1_000)]
    assert ids == [draw_prompt_id(again) for _ in range(1_000)]
    assert len({*ids}) == 1_000
    assert all(len(each) == 32 and int(each, 16) < 2**128 and each == each.lower() for each in ids)
    small = Random(0)
    small.getrandbits = lambda bits: 7  # type: ignore[method-assign]
    assert draw_prompt_id(small) == "0" * 31 + "7"


def test_every_job_of_every_prompt_has_its_own_id_and_leads_back_to_its_prompt() -> None:
    prompts = [PromptId("a"), PromptId("a1"), PromptId(f"{11:032x}")]
    names = {
        job_id(prompt, layer, slot, attempt): prompt
        for prompt, layer, slot, attempt in product(prompts, range(1, 18), range(65), range(4))
    }
    assert len(names) == 3 * 17 * 65 * 4
    assert all(prompt_of(job) == prompt for job, prompt in names.items())
