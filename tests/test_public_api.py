"""What a package says that it offers is what it offers, and importing it is cheap."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

SRC = Path(__file__).parent.parent / "src"
PACKAGES = sorted(
    ".".join(path.parent.relative_to(SRC).parts) for path in (SRC / "folkmoot").rglob("__init__.py")
)
HEAVY = (
    "xllamacpp",
    "huggingface_hub",
    "iroh",
    "zeroconf",
    "uvicorn",
    "starlette",
    "httpx",
    "rich",
    "click",
    "numpy",
    "numba",
)


@pytest.mark.parametrize("name", PACKAGES)
def test_all_is_sorted_and_real(name):
    package = importlib.import_module(name)
    listed = list(getattr(package, "__all__", []))
    assert listed == sorted(listed, key=_kind_and_name)
    assert [each for each in listed if not hasattr(package, each)] == []


def _kind_and_name(name: str) -> tuple[int, str]:
    """Constants, then classes, then functions, as ruff sorts them."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


def test_the_package_is_typed():
    assert (SRC / "folkmoot/py.typed").exists()


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("folkmoot", HEAVY),
        ("folkmoot.core", HEAVY),
        (
            "folkmoot.cli",
            ("xllamacpp", "huggingface_hub", "iroh", "zeroconf", "uvicorn", "segno", "numpy", "numba"),
        ),
    ],
)
def test_importing_pulls_in_no_heavy_module(module, heavy):
    code = f"import sys, {module}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & set(heavy) == set()
