"""How able this device's own model is: probes are put to it while nobody needs it, and what they say is kept between starts."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from zlib import crc32

import msgspec

from folkmoot.core.ids import PromptId
from folkmoot.core.messages import Inference, Sampling, Turn
from folkmoot.core.peer import Peer
from folkmoot.core.skill import Probe, SkillClass, Tally, passed
from folkmoot.errors import FolkmootError, NodeError
from folkmoot.node import storage
from folkmoot.node.config import SkillConfig
from folkmoot.node.work import Work

FILE = "skill.json"
ASIDE = "skill.json.damaged"
MOST_MODELS = 16
"""Models whose results are kept: those that were probed last (guess)."""
RETRY_S = 60.0
"""How long nothing is asked of an engine that has failed at a probe (guess)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Probes:
    """The questions, those of a class together, and their checksum: results are of these questions alone."""

    all: tuple[Probe, ...]
    checksum: int


def load_probes() -> Probes:
    """The packaged probes."""
    data = resources.files("folkmoot.node").joinpath("probes.toml").read_bytes()
    rows = tomllib.loads(data.decode())["probe"]
    probes = msgspec.convert(rows, tuple[Probe, ...])
    classes = list(SkillClass)
    return Probes(tuple(sorted(probes, key=lambda probe: classes.index(probe.skill))), crc32(data))


@dataclass(frozen=True, slots=True)
class Kept:
    """What stands in the file: the checksum of the probes, and by model which of them were answered right."""

    version: int
    probes: int
    models: dict[str, dict[str, bool]]


class Skills:
    """The results of this device's models, as they are in the file of its home."""

    def __init__(self, home: Path, probes: Probes) -> None:
        self._path = home / FILE
        self.probes = probes
        self._models = self._load()

    def left(self, model: str) -> list[Probe]:
        """The probes that a model has not answered yet."""
        there = self._models.get(model, {})
        return [probe for probe in self.probes.all if probe.id not in there]

    def tallies(self, model: str) -> tuple[Tally, ...]:
        """What is known of a model, class by class; nothing of a class of which it has not answered all probes."""
        there = self._models.get(model, {})
        found = list[Tally]()
        for skill in SkillClass:
            results = [there.get(probe.id) for probe in self.probes.all if probe.skill is skill]
            found.append(Tally() if None in results else Tally(results.count(True), len(results)))
        return tuple(found)

    def note(self, model: str, probe: Probe, right: bool) -> None:
        """A model has answered a probe."""
        self._models[model] = self._models.pop(model, {}) | {probe.id: right}
        while len(self._models) > MOST_MODELS:
            del self._models[next(iter(self._models))]

    def write(self) -> None:
        """Write all results down; waits for the disk. Raises NodeError; what was there before is kept then."""
        storage.save(self._path, Kept(1, self.probes.checksum, self._models))

    def _load(self) -> dict[str, dict[str, bool]]:
        """The results in the file; none where there is no file, or its probes were others. A damaged one is set aside."""
        try:
            kept = storage.load(self._path, Kept, "it holds no results of probes")
        except NodeError as error:
            log.warning("%s; it is set aside as %s, and the model is probed again", error, ASIDE)
            with contextlib.suppress(OSError):
                self._path.replace(self._path.with_name(ASIDE))
            return {}
        if kept is None or (kept.version, kept.probes) != (1, self.probes.checksum):
            return {}
        return dict(list(kept.models.items())[-MOST_MODELS:])


class Prober:
    """Puts the probes to the engine, one at a time, while this device has nothing else to do.

    `model` tells what serves now, None where nothing does that is to be probed. `tell` is called when a class is through.
    """

    def __init__(
        self,
        skills: Skills,
        config: SkillConfig,
        peer: Peer,
        work: Work,
        *,
        model: Callable[[], str | None],
        draw: Callable[[], PromptId],
        tell: Callable[[], None],
    ) -> None:
        self._skills = skills
        self._config = config
        self._peer = peer
        self._work = work
        self._model = model
        self._draw = draw
        self._tell = tell

    async def run(self) -> None:
        """Never ends: another model may be loaded at any time."""
        while True:
            await self._quiet()
            try:
                while await self._one():
                    pass
            except FolkmootError as error:
                log.info("a probe failed: %s", error.code)
                await asyncio.sleep(RETRY_S)

    async def _quiet(self) -> None:
        """Return when nothing was to be done here for `quiet_s` seconds."""
        while True:
            jobs = self._peer.queue.meter.jobs
            await asyncio.sleep(self._config.quiet_s)
            if self._peer.idle and self._peer.queue.meter.jobs == jobs:
                return

    async def _one(self) -> bool:
        """Put the next probe; False where there is none, or something else needed the engine. Raises EngineError."""
        model = self._model()
        left = self._skills.left(model) if model else []
        if not model or not left or not self._peer.idle:
            return False
        probe = left[0]
        sampling = Sampling(max_tokens=probe.tokens, temperature=0.0, seed=1)
        inference = Inference(self._draw(), (Turn("user", probe.question),), sampling=sampling)
        answer = await self._work.probe(inference)
        if answer is None or model != self._model():
            return False
        self._skills.note(model, probe, passed(probe, *answer))
        try:
            await asyncio.to_thread(self._skills.write)
        except NodeError as error:
            log.warning("%s; the model is probed again at the next start", error)
        if len(left) == 1 or left[1].skill is not probe.skill:
            self._tell()
        return True
