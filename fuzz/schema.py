"""`make fuzz`, its last part: schemathesis draws requests from the /openapi.json of a running device, and sends them over HTTP.

    python -m fuzz.schema --schemathesis .venv-fuzz/bin/schemathesis --json

A device with `timed:det:0` in a home of its own is asked twice: with the control token, so that what only its owner may do
is reached too, and without any. No answer is a 500, and each has a status, a type and a body that the document knows. The stream of
events is left out: it has no end. Exits 1 where schemathesis found something; its report then stands on stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from folkmoot.api.control import read_control_token
from folkmoot.cli.village import village

CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
)  # fmt: skip
ENDLESS = "/v1/moot/events"


async def run(program: str, examples: int, seed: int) -> dict[str, Any]:
    """Start a device and let schemathesis at it; what it did with the control token and without."""
    async with village(dict(os.environ), lambda line: print(line, file=sys.stderr)) as moot:
        await moot.start(["timed:det:0"])
        device = moot.devices[0]
        token = read_control_token(device.home)
        return {
            who: await _drawn(program, device.api, headers, examples, seed)
            for who, headers in (("owner", ["-H", f"Authorization: Bearer {token}"]), ("nobody", list[str]()))
        }


async def _drawn(program: str, api: str, headers: list[str], examples: int, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="folkmoot-schema-") as folder:
        report = Path(folder) / "report.json"
        command = [
            program, "run", f"{api}/openapi.json", "--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing",
            "--exclude-path", ENDLESS, "--max-examples", str(examples), "--seed", str(seed), "--no-shrink",
            "--continue-on-failure", "--request-timeout", "30", "--no-color", "--report", "json", "--report-json-path", str(report),
            *headers,
        ]  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        said, _ = await process.communicate()
        if process.returncode:
            sys.exit(said.decode("utf-8", "replace"))
        found = json.loads(report.read_text("utf-8"))
        return {
            "operations": found["operations"],
            "cases": found["test_cases"],
            "seconds": found["running_time"],
        }


def main() -> None:
    """Run it; exits 1 where something was found."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz.schema",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--schemathesis", default="schemathesis", help="the program")
    parser.add_argument("--examples", type=int, default=100, help="requests for each operation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    program = shutil.which(asked.schemathesis)
    if program is None:
        parser.error(
            f"there is no {asked.schemathesis}: `make fuzz` installs it, or `pip install schemathesis`"
        )
    found = asyncio.run(run(os.path.abspath(program), asked.examples, asked.seed))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    print(json.dumps(found | {"machine": machine, "seed": asked.seed}, indent=None if asked.json else 2))


if __name__ == "__main__":
    main()
