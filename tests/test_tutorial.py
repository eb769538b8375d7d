"""The tutorial runs as it stands."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "docs/tutorial").glob("*.ipynb"))
# A last expression is evaluated, as a notebook shows it.
RUN = """
import ast, json, pathlib, sys
scope = {"__name__": "__main__"}
for cell in json.loads(pathlib.Path(sys.argv[1]).read_text("utf-8"))["cells"]:
    if cell["cell_type"] == "code":
        *body, last = ast.parse("".join(cell["source"])).body
        shown = isinstance(last, ast.Expr)
        exec(compile(ast.Module([*body, *([] if shown else [last])], []), sys.argv[1], "exec"), scope)
        if shown:
            print(repr(eval(compile(ast.Expression(last.value), sys.argv[1], "eval"), scope)))
"""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_a_notebook_runs_and_keeps_no_output(notebook, tmp_path, monkeypatch):
    for cell in json.loads(notebook.read_text("utf-8"))["cells"]:
        assert cell["cell_type"] == "markdown" or (cell["outputs"], cell["execution_count"]) == ([], None)
    monkeypatch.setenv("MPLBACKEND", "Agg")
    command = [sys.executable, "-W", "error", "-c", RUN, str(notebook)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "later stage first" in done.stdout


def test_there_is_one():
    assert NOTEBOOKS
