from __future__ import annotations

import asyncio
import math
import statistics
import sys
from pathlib import Path
from random import Random

import pytest

from folkmoot.core.ids import PromptId
from folkmoot.core.law import Exponential, Fixed, Law, Trace, parse_law
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.engine.config import EngineConfig
from folkmoot.engine.protocol import Done, Text
from folkmoot.engine.spec import build, parse_spec
from folkmoot.engine.timed import WORDS_PER_S, TimedEngine, read_table
from folkmoot.errors import ConfigError, PromptTooLong

DATA = Path(__file__).parents[1] / "data"
LENGTHS = Path(__file__).parents[2] / "../shared/data/alpaca_eval_lengths.csv"


def job(seed: int | None = 1, limit: int = 512, prompt: str = "p") -> Inference:
    return Inference(PromptId(prompt), (Turn("user", "one two three"),), sampling=Sampling(limit, seed=seed))


async def run(engine: TimedEngine, inference: Inference) -> tuple[list[str], Done]:
    *pieces, end = [event async for event in engine.generate(inference)]
    assert isinstance(end, Done)
    return [piece.text for piece in pieces if isinstance(piece, Text) and piece.text], end


async def test_nothing_takes_no_time() -> None:
    pieces, end = await run(TimedEngine(Fixed(0.0)), job())
    assert len(pieces) == 1
    assert end.usage.tokens_in == 3
    assert end.usage.tokens_out == 1
    assert end.usage.inference_s < 0.05


async def test_the_text_is_spread_over_the_time() -> None:
    clock = asyncio.get_running_loop().time
    began = clock()
    pieces, end = await run(TimedEngine(Fixed(0.3)), job())
    assert 0.3 <= clock() - began
    assert len(pieces) == 9
    assert end.usage.tokens_out == round(0.3 * WORDS_PER_S) == len("".join(pieces).split())
    assert 0 < end.usage.first_token_s < end.usage.inference_s
    assert not end.truncated


async def test_a_seed_fixes_time_and_text() -> None:
    law = Exponential(0.05)
    one = await run(TimedEngine(law, rng=Random(1)), job(5))
    two = await run(TimedEngine(law, rng=Random(2)), job(5))
    assert one[0] == two[0]
    assert (await run(TimedEngine(Fixed(0.2)), job(5)))[0] != (await run(TimedEngine(Fixed(0.2)), job(6)))[0]


async def test_the_token_limit_shortens_the_text_only() -> None:
    pieces, end = await run(TimedEngine(Fixed(0.2)), job(limit=2))
    assert len("".join(pieces).split()) == 2
    assert end.truncated
    assert end.usage.inference_s >= 0.2


async def test_stored_texts_are_given_out_whole() -> None:
    engine = TimedEngine(Fixed(0.0), texts=("First\n one.", "Second one."))
    written = ["".join((await run(engine, job(None)))[0]) for _ in range(3)]
    assert written == ["First\n one.", "Second one.", "First\n one."]
    assert "".join((await run(engine, job(1)))[0]) == "Second one."


async def test_cancelling_stops_it() -> None:
    task = asyncio.create_task(run(TimedEngine(Fixed(1000.0)), job()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_all_devices_of_a_prompt_draw_the_same_row(tmp_path: Path) -> None:
    file = tmp_path / "times.csv"
    file.write_text("id,a,b\n" + "".join(f"x{row},{row / 1000},{row / 500}\n" for row in range(50)))
    engine = build(parse_spec(f"timed:trace:{file}"), EngineConfig())
    assert isinstance(engine, TimedEngine)
    law: Law = engine._law
    one, two = TimedEngine(law, device=0), TimedEngine(law, device=1)
    for prompt in ("p", "q", "r"):
        first = (await run(one, job(1, prompt=prompt)))[1].usage.inference_s
        second = (await run(two, job(2, prompt=prompt)))[1].usage.inference_s
        assert second == pytest.approx(2 * first, abs=0.02)


async def test_it_refuses_what_a_model_would_refuse() -> None:
    engine = TimedEngine(Fixed(0.0), EngineConfig(context_tokens=256))
    endless = Inference(PromptId("p"), (Turn("user", "word " * 300),))
    with pytest.raises(PromptTooLong, match="300 tokens.*256"):
        await run(engine, endless)
    assert (await engine.start()).context_tokens == 256
    assert (await engine.prefill(job())).total == 0
    await engine.close()


@pytest.mark.parametrize("name", ["missing.csv", "missing.parquet", "binary.csv", "binary.parquet"])
def test_an_unreadable_trace_is_a_config_error(name: str, tmp_path: Path) -> None:
    for binary in ("binary.csv", "binary.parquet"):
        (tmp_path / binary).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="give a (CSV|Parquet) file"):
        build(parse_spec(f"timed:trace:{tmp_path / name}"), EngineConfig())


def test_a_trace_is_the_same_in_both_formats() -> None:
    laws = [parse_law(f"trace:{DATA / name}::4", read_table) for name in ("trace.csv", "trace.parquet")]
    assert laws[0] == laws[1]
    assert isinstance(laws[0], Trace)
    assert (laws[0].columns, len(laws[0].rows)) == (("birch", "oak", "elm"), 40)
    assert laws[0].mean == pytest.approx(4)


def test_a_hole_in_parquet_is_told(tmp_path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    for hole, says in ((None, "has no time in column .b."), (math.nan, "has .nan., no time in column .b.")):
        parquet.write_table(pyarrow.table({"a": [1.0, 2.0], "b": [3.0, hole]}), tmp_path / "t.parquet")
        with pytest.raises(ConfigError, match=f"row 2 below the header .*{says}"):
            parse_law(f"trace:{tmp_path / 't.parquet'}", read_table)


def test_parquet_without_its_reader_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"pip install 'folkmoot\[sim\]'"):
        read_table(str(DATA / "trace.parquet"))


@pytest.mark.skipif(
    not LENGTHS.exists(), reason="the measured answer lengths are not part of this repository"
)
def test_measured_answer_lengths_are_a_trace() -> None:
    models = ("Meta-Llama-3-70B-Instruct", "Qwen1.5-72B-Chat", "Mixtral-8x22B-Instruct-v0.1", "dbrx-instruct")
    names = "+".join(f"{model}__tokens_cl100k" for model in models)
    law = parse_law(f"trace:{LENGTHS}:{names}:45.4", read_table)
    assert isinstance(law, Trace)
    assert law.mean == pytest.approx(45.4)
    first, second = zip(*((row[0], row[1]) for row in law.rows), strict=True)
    assert statistics.correlation(first, second) > 0.3, (
        "one row a prompt: lengths move together across models"
    )
