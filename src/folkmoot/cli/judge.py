"""`folkmoot eval judge`: what no program can check, judged by a model."""

from __future__ import annotations

import asyncio
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from folkmoot.cli import exits
from folkmoot.cli.calls import engine_config, named, store_at
from folkmoot.cli.console import counted
from folkmoot.cli.options import Finite, config_option, json_option, print_json
from folkmoot.cli.progress import Progress
from folkmoot.cli.signals import ending
from folkmoot.errors import ConfigError, EvalError

if TYPE_CHECKING:
    from folkmoot.engine.config import EngineConfig
    from folkmoot.evals.arms import Arm
    from folkmoot.evals.judge import Answers, Baseline
    from folkmoot.evals.records import Setup
    from folkmoot.evals.standings import Judgments
    from folkmoot.evals.store import Store
    from folkmoot.evals.tasks import Task

difficulty_option = click.option(
    "--difficulty", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="AlpacaEval's difficulties of its 805 instructions (CSV), for the length-controlled win rate (extra [judge]).",
)  # fmt: skip

baseline_option = click.option(
    "--baseline", metavar="ARM|FILE", default="",
    help="What answers are compared with, in both orders: another arm, or a file of AlpacaEval outputs (id, output).",
)  # fmt: skip
same_option = click.option(
    "--same", "same_share", type=Finite(0.0, 1.0), default=0.2, show_default=True, metavar="SHARE",
    help="For such a share of the prompts the judge also sees the baseline's answer on both sides, which shows its bias.",
)  # fmt: skip


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--judge", "spec", metavar="[NAME=]SPEC", default="",
    help="The engine that judges. [default: gpt-4-1106-preview at api.openai.com, with the key that engines take from the environment]",
)  # fmt: skip
@baseline_option
@click.option(
    "--set", "sets", multiple=True, metavar="SET:FILE",
    help="The run's files of open tasks, where they do not lie any more where the run found them.",
)  # fmt: skip
@click.option("--arms", default="", metavar="A,B,...", help="Judge these arms. [default: all]")
@same_option
@click.option(
    "--calls", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE",
    help="Where every reply is kept and found again. [default: calls.sqlite in FOLDER]",
)  # fmt: skip
@click.option(
    "--at-once", type=click.IntRange(1, 64), default=4, show_default=True, help="Replies that it writes at a time."
)  # fmt: skip
@difficulty_option
@json_option
@config_option
def judge(
    folder: Path, spec: str, baseline: str, sets: tuple[str, ...], arms: str, same_share: float, calls: Path | None,
    at_once: int, difficulty: Path | None, as_json: bool, config_file: Path | None,
) -> None:  # fmt: skip
    """Have a model judge what a run in FOLDER answered to AlpacaEval, MT-Bench or FLASK; run again, it goes on.

    Answers are compared with those of a baseline in both orders; those to MT-Bench and FLASK are marked as well. A small judge's
    verdicts are no evidence of quality, and the report says so.
    """
    from folkmoot.evals.judge import DEFAULT, answers_of
    from folkmoot.evals.pages import judged
    from folkmoot.evals.records import load, read_setup
    from folkmoot.evals.standings import JUDGMENTS, Judgments, judges_told, marks_told, verdicts, win_rates

    config = engine_config(at_once, config_file)
    if not spec and not config.api_key:
        raise ConfigError(
            f"there is no --judge, and {config.api_key_env} holds no key for the usual one ({DEFAULT}); set it, or name a judge such as "
            "--judge embedded:qwen-1.5b"
        )
    tasks = _tasks(read_setup(folder), sets)
    answers: dict[str, Answers] = dict(answers_of(load(folder)))
    other = _baseline(baseline, answers)
    chosen = [arm for arm in arms.split(",") if arm] or list(answers)
    for arm in chosen:
        if arm not in answers:
            raise click.UsageError(f"--arms {arm}: {folder} has {', '.join(sorted(answers))}")
    if other is None:
        _check_compared(tasks, answers)
    kept = Judgments.open(folder / JUDGMENTS)
    kept.mend()
    before = len(kept)
    work = _judge(
        spec or DEFAULT, config, calls or folder / "calls.sqlite", tasks, {arm: answers[arm] for arm in chosen}, other, same_share, kept,
        at_once,
    )  # fmt: skip
    try:
        made, found = exits.wait_for(work)
    except exits.Interrupted:
        raise exits.Interrupted(
            f"interrupted: {counted(len(kept), 'judgment')} are kept in {folder}; the same command goes on"
        ) from None
    told = verdicts(kept, difficulty)
    if as_json:
        print_json({
            "judgments": len(kept), "new": len(kept) - before, "made": made, "found": found, "win_rate": win_rates(told),
            "marks": marks_told(told), "judges": judges_told(told),
        })  # fmt: skip
    else:
        click.echo(judged(told), nl=False)


@dataclass(frozen=True, slots=True)
class Pricing:
    """The judge whose work is to be priced, its SPEC, and what it compares with: an arm by its name, or a file's answers."""

    spec: str
    baseline: str | Baseline | None
    same_share: float


def priced(
    spec: str, baseline: str, same_share: float, tasks: Sequence[Task], arms: Sequence[str]
) -> Pricing | None:
    """What `eval plan` is to price, None without a judge. Raises `EvalError`, `click.UsageError`."""
    from folkmoot.engine.spec import parse_spec
    from folkmoot.evals.judge import outputs
    from folkmoot.evals.tasks import OPEN

    if not spec:
        return None
    if parse_spec(named(spec)[1]).kind == "none":
        raise click.UsageError("--judge none: a judge needs a model")
    if not any(task.open for task in tasks):
        raise click.UsageError(
            f"--judge: no --set holds what is judged; such are {', '.join(f'{name}:FILE' for name in OPEN)}"
        )
    if not baseline:
        _check_compared(tasks, arms)
        return Pricing(spec, None, same_share)
    if baseline in arms:
        return Pricing(spec, baseline, same_share)
    if not Path(baseline).exists():
        raise click.UsageError(
            f"--baseline {baseline}: it is no file and none of the arms, {', '.join(arms)}"
        )
    return Pricing(spec, outputs(Path(baseline)), same_share)


def _check_compared(tasks: Sequence[Task], arms: Iterable[str]) -> None:
    """Raises `click.UsageError` where AlpacaEval is among what is to be judged without a baseline."""
    if any(task.set == "alpaca" for task in tasks):
        raise click.UsageError(
            "answers to AlpacaEval are compared: name a --baseline, a file of outputs or one of "
            + ", ".join(arms)
        )


async def what_judging_takes(
    pricing: Pricing, config: EngineConfig, at_once: int, arms: Sequence[Arm], tasks: Sequence[Task],
    models: Sequence[str], store: Store,
) -> dict[str, Any]:  # fmt: skip
    """The judge's verdicts, tokens and hours, at the speed that it has."""
    from folkmoot.engine.spec import build, parse_spec
    from folkmoot.evals.costs import judging_costs, reading, speed

    name, text = named(pricing.spec)
    engine = build(parse_spec(text), config)
    assert engine is not None  # `none` was refused
    try:
        exits.tell(f"loading {text}")
        info = await engine.start()
        speeds = (
            await reading(engine, at_once, time.monotonic),
            await speed(engine, at_once, time.monotonic),
        )
    finally:
        await engine.close()
    cost = judging_costs(arms, tasks, models, store, pricing.baseline, pricing.same_share, speeds)
    return {
        "judge": name or info.model, "verdicts": cost.pairs + cost.same + cost.marks, "pairs": cost.pairs, "same": cost.same,
        "marks": cost.marks, "tokens_in": cost.tokens_in, "tokens_out": cost.tokens_out, "read_per_s": speeds[0],
        "written_per_s": speeds[1], "hours": cost.seconds / 3600,
    }  # fmt: skip


def _tasks(setup: Setup, sets: Sequence[str]) -> list[Task]:
    """The open tasks that a run asked, out of files whose contents are those that it read. Raises `EvalError`."""
    from folkmoot.evals.tasks import OPEN, digest, load, pooled

    words = shlex.split(setup.command)
    given = list(sets) or [value for flag, value in zip(words, words[1:], strict=False) if flag == "--set"]
    found = []
    for each in given:
        kind, _, file = each.partition(":")
        if kind not in OPEN:
            continue
        if not Path(file).exists():
            raise EvalError(f"{file} is not there: name the run's file with --set {kind}:FILE")
        if digest(Path(file)) not in setup.digests:
            raise EvalError(
                f"--set {each}: it does not hold the tasks of this run, which asked {', '.join(setup.sets)}"
            )
        found.append(load(Path(file)))
    if not found:
        raise EvalError(
            f"nothing is to be judged: the run asked {', '.join(setup.sets)}; open sets are {', '.join(OPEN)} (folkmoot eval run --set)"
        )
    return pooled(found)


def _baseline(name: str, answers: dict[str, Answers]) -> Baseline | None:
    """An arm, or a file. Raises `EvalError`."""
    from folkmoot.evals.judge import Baseline, outputs

    if not name:
        return None
    if name in answers:
        return Baseline(name, answers[name])
    if not Path(name).exists():
        raise click.UsageError(
            f"--baseline {name}: it is no file and none of the run's arms, {', '.join(answers)}"
        )
    return outputs(Path(name))


async def _judge(
    spec: str, config: EngineConfig, calls: Path, tasks: Sequence[Task], answers: dict[str, Answers], baseline: Baseline | None,
    same_share: float, kept: Judgments, at_once: int,
) -> tuple[int, int]:  # fmt: skip
    """How many replies were made and found."""
    from folkmoot.engine.spec import build, parse_spec
    from folkmoot.evals.judge import judge, missing, wanted, weakness
    from folkmoot.evals.proxy import Proxy

    task = asyncio.current_task()
    assert task is not None  # asyncio.run made one
    for each in ending():
        asyncio.get_running_loop().add_signal_handler(each, task.cancel)
    name, text = named(spec)
    engine = build(parse_spec(text), config)
    if engine is None:
        raise click.UsageError("--judge none: a judge needs a model")
    lost = 0

    def step(done: bool) -> None:
        nonlocal lost
        lost += not done
        bar.step()

    with store_at(calls) as store:
        try:
            exits.tell(f"loading {text}")
            info = await engine.start()
            if info.elsewhere:
                exits.tell(f"what is judged goes to {info.elsewhere}")
            weak = weakness(info.model, info.skill, info.made_up)
            proxy = Proxy(name or info.model, engine, store, at_once=at_once)
            some = missing(proxy, wanted((proxy.name, weak), tasks, answers, baseline, same_share), kept)
            letters = sum(len(turn["content"]) for each in some for turn in each.messages or ())
            exits.tell(f"{counted(len(some), 'judgment')} to be made, about {letters // 4} tokens to be read")
            try:
                with Progress("judgments", len(some)) as bar:
                    await judge(proxy, some, kept, at_once=at_once, step=step)
            finally:
                await proxy.close()
        finally:
            await engine.close()
    if lost:
        exits.tell(
            f"{counted(lost, 'judgment')} came to nothing and are left out; the same command tries them again"
        )
    return proxy.made, proxy.found
