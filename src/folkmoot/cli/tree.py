"""How an answer came to be, as a tree of jobs."""

from __future__ import annotations

import textwrap
from typing import Any

from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

Json = dict[str, Any]

SHOWN = 280
"""Characters of a proposal in the tree: enough to see what it says."""


def tree_of(answer: Json) -> Tree:
    """The provenance (INTERFACE.md, JSON of an answer) as a tree for a terminal."""
    jobs = answer["jobs"]
    spent = sum(job["tokens_out"] for job in jobs)
    tree = Tree(
        f"[bold]{escape(answer['origin'])}[/] asked with M={answer['layers']} k={answer['proposers']} "
        f"({answer['mode']}): {len(jobs)} {'job' if len(jobs) == 1 else 'jobs'}, {spent} tokens written, "
        f"first word after {answer['first_token_s']:.1f} s, whole after {answer['latency_s']:.1f} s"
    )
    rounds = {each["layer"]: each for each in answer["rounds"]}
    for layer in sorted({job["layer"] for job in jobs}):
        here = [job for job in jobs if job["layer"] == layer]
        branch = tree.add(_title(layer, here, rounds.get(layer)))
        for job in here:
            node = branch.add(_line(job))
            if text := " ".join(job.get("text", "").split()):
                node.add(Text(textwrap.shorten(text, SHOWN, placeholder=" …"), style="dim"))
    for decision in answer["decisions"]:
        tree.add(f"[italic]{escape(decision['what'])}[/]: {escape(decision['why'])}")
    return tree


def _title(layer: int, jobs: list[Json], asked: Json | None) -> str:
    stage = jobs[0]["stage"]
    if asked is None:
        return f"[bold]{stage}[/]"
    title = f"[bold]layer {layer}[/] ({stage}), asked {escape(', '.join(asked['asked']))}"
    stood_in = [f"{escape(new)} for {escape(old)}" for old, new in asked["stood_in"].items()]
    return title + (f", stood in: {', '.join(stood_in)}" if stood_in else "")


def _line(job: Json) -> str:
    style = "green" if job["outcome"] == "ok" else "red"
    line = "judge " if job["stage"] == "judge" else ""
    line += f"[bold]{escape(job['device'])}[/] {escape(job['model'])} [{style}]{job['outcome']}[/{style}]"
    if "stands_in_for" in job:
        line += f" standing in for {escape(job['stands_in_for'])}"
    if job["outcome"] == "ok":
        line += (
            f", waited {job['queued_s']:.1f} s, took {job['inference_s']:.1f} s, "
            f"{job['tokens_in']} tokens in ({job['tokens_cached']} cached), {job['tokens_out']} out"
        )
        if writing_s := job["inference_s"] - job["first_token_s"]:
            line += f", {job['tokens_out'] / writing_s:.0f} tokens/s" if writing_s > 0.01 else ""
    elif job["tokens_in"] or job["tokens_out"]:
        line += f", {job['tokens_in']} tokens in and {job['tokens_out']} out all the same"
    return line + (f": {escape(job['error'])}" if "error" in job else "")
