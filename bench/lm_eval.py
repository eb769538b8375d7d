"""lm-eval's GSM8K and IFEval on live moots, out of local files: does a program that knows nothing of us run to its end?

    make lm-eval                                  installs lm-eval into .venv-lmeval, then runs this with --quick
    python bench/lm_eval.py --json                a real model as well

Asks a moot of one device and one of two (`timed:det:0.05`: texts that say nothing, so the scores mean nothing) through
`lm-eval run --model local-chat-completions`; without --quick also two devices with `embedded:smollm2`. `prompts` are those with
an answer in lm-eval's record, `errors` the requests that were refused and the answers without text, `exit` the first exit code
that is not 0. The tasks are bench/lm_eval_tasks; the files come from ../shared/data where that is, else from beside the tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from folkmoot.cli.village import village

ROOT = Path(__file__).parent.parent
TASKS = Path(__file__).parent / "lm_eval_tasks"
DATA = ROOT.parent / "shared" / "data"
NAMES = ("gsm8k_file", "ifeval_file")
LIMIT_S = 900.0


@dataclass(frozen=True, slots=True)
class Case:
    """A moot, and how much is asked of it; `max_tokens` None leaves the tasks' own."""

    engine: str
    devices: int
    limit: int
    max_tokens: int | None = None


QUICK = (Case("timed:det:0.05", 1, 5), Case("timed:det:0.05", 2, 5))
REAL = Case("embedded:smollm2", 2, 3, max_tokens=128)


async def evaluate(case: Case, program: Path, data: Path) -> dict[str, object]:
    """One run of lm-eval on a moot of its own."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="folkmoot-lm-eval-") as scratch:
        async with village(dict(os.environ), _tell) as devices:
            await devices.start([case.engine] * case.devices)
            url = f"{devices.devices[0].api}/v1/chat/completions"
            command = [
                str(program), "run", "--model", "local-chat-completions",
                "--model_args", f"model=moot,base_url={url},timeout=600",
                "--tasks", ",".join(NAMES), "--include_path", str(TASKS), "--apply_chat_template",
                "--limit", str(case.limit), "--output_path", str(Path(scratch) / "out"), "--log_samples",
            ]  # fmt: skip
            if case.max_tokens is not None:
                command += ["--gen_kwargs", f"max_gen_toks={case.max_tokens}"]
            _tell(" ".join(command))
            code, log = await _ended(command, data, Path(scratch))
        if code:
            _tell(log)
        return {
            "engine": case.engine, "devices": case.devices, **_recorded(Path(scratch) / "out", log),
            "exit": code, "wall_s": time.perf_counter() - began,
        }  # fmt: skip


async def _ended(command: list[str], data: Path, scratch: Path) -> tuple[int, str]:
    """Its exit code and all that it said; 124 where it takes too long. It runs in the folder of the files."""
    environ = {**os.environ, "HF_HOME": str(scratch / "hub"), "HF_HUB_OFFLINE": "1"}
    environ.pop("PYTHONPATH", None)  # another environment's packages
    process = await asyncio.create_subprocess_exec(
        *command, cwd=data, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), LIMIT_S)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 124, f"lm-eval did not end within {LIMIT_S:.0f} s"
    return process.returncode or 0, said.decode("utf-8", "replace")


def _recorded(out: Path, log: str) -> dict[str, object]:
    """What lm-eval wrote down: scores by task, the prompts that it has an answer to, what went wrong."""
    scores: dict[str, dict[str, float]] = {}
    for file in out.rglob("results_*.json"):
        for task, found in json.loads(file.read_text("utf-8"))["results"].items():
            scores[task] = {name: each for name, each in found.items() if _is_score(name, each)}
    answers: dict[tuple[str, int], str] = {}
    for name in NAMES:
        for file in out.rglob(f"samples_{name}_*.jsonl"):
            for line in file.read_text("utf-8").splitlines():
                row = json.loads(line)  # one line for each of the task's filters
                answers[name, row["doc_id"]] = row["resps"][0][0]
    empty = sum(not text.strip() for text in answers.values())
    return {
        "tasks": scores, "prompts": len(answers) - empty,
        "errors": log.count("API request failed") + empty,
    }  # fmt: skip


def _is_score(name: str, found: object) -> bool:
    return isinstance(found, float) and "_stderr" not in name


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def run(cases: tuple[Case, ...], program: Path, data: Path) -> dict[str, object]:
    """All runs, and their sums."""
    runs = [await evaluate(case, program, data) for case in cases]
    return {
        "tasks": list(NAMES), "prompts": sum(int(str(each["prompts"])) for each in runs),
        "asked": sum(len(NAMES) * case.limit for case in cases),
        "errors": sum(int(str(each["errors"])) for each in runs),
        "exit": next((each["exit"] for each in runs if each["exit"]), 0), "runs": runs,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}", "seed": 1234,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--quick", action="store_true", help="one device without a model: half a minute on a quiet machine"
    )
    parser.add_argument("--json", action="store_true", help="the last line is one JSON object")
    parser.add_argument("--lm-eval", type=Path, default=ROOT / ".venv-lmeval" / "bin" / "lm-eval")
    parser.add_argument("--data", type=Path, default=DATA if DATA.is_dir() else TASKS)
    asked = parser.parse_args()
    if not asked.lm_eval.is_file():
        parser.error(f"{asked.lm_eval} is not there; `make lm-eval` installs it")
    cases = QUICK[:1] if asked.quick else (*QUICK, REAL)
    found = asyncio.run(run(cases, asked.lm_eval.absolute(), asked.data.absolute()))
    print(json.dumps(found) if asked.json else json.dumps(found, indent=2))
    sys.exit(bool(found["exit"] or found["errors"] or found["prompts"] != found["asked"]))


if __name__ == "__main__":
    main()
