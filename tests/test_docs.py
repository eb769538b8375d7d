"""What is written down is true of the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from folkmoot.api.faults import STATUS
from folkmoot.cli import group
from folkmoot.engine.weights import CATALOGUE

ROOT = Path(__file__).parent.parent
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]


def test_the_reference_is_fresh():
    command = [sys.executable, ROOT / "docs/reference/generate.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_our_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_notice_names_every_model_with_its_checksum():
    notice = (ROOT / "NOTICE").read_text("utf-8")
    for model in CATALOGUE.values():
        assert model.title in notice
        assert model.sha256 in notice
        assert f"{model.bytes:,}" in notice


def test_the_demos_weights_are_those_of_the_catalogue():
    listed = {
        line for line in (ROOT / "models.txt").read_text().splitlines() if line and not line.startswith("#")
    }
    assert listed == {each for name in ("smollm2", "qwen-0.5b") for each in CATALOGUE[name].requirements}


def test_the_page_of_errors_names_every_code_that_the_api_can_send():
    rows = re.findall(
        r"^\| `(\w+)` \| (\d+) \|", (ROOT / "docs/reference/errors.md").read_text("utf-8"), re.M
    )
    assert {code: int(status) for code, status in rows} == STATUS


def test_every_code_that_the_api_spells_out_is_in_its_table():
    source = "".join(path.read_text("utf-8") for path in (ROOT / "src/folkmoot/api").glob("*.py"))
    spelt = re.findall(
        r"""(?:_Fault|failure_response|failure)\(\s*"(\w+)\"|^    code = "(\w+)\"""", source, re.M
    )
    assert len(spelt) > 8
    assert {one or other for one, other in spelt} <= set(STATUS)


def test_the_readme_names_every_command():
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in group.commands if f"`folkmoot {name}" not in readme] == []


def test_architecture_names_every_room():
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = [path.parent.name for path in (ROOT / "src/folkmoot").glob("*/__init__.py")]
    assert [room for room in rooms if f"`{room}/`" not in text] == []


def test_pins_are_exact_and_name_no_place():
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line)
