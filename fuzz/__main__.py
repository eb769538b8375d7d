"""`make fuzz`: mutated peer messages and mutated requests, as many as are asked for.

    python -m fuzz                                            10^6 messages, 10^5 requests
    python -m fuzz --messages 20000 --requests 2000 --json

Messages: real ones of a simulated moot, bent as bytes or inside their msgpack, go through the codec into a whole core that is
alive (`fuzz/peers.py`), in one process a core. Requests: drawn from /openapi.json and bent, go into the API of a running device
(`fuzz/api.py`). A promise that is not kept ends the run with the seed and the message or request that broke it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context

from fuzz import api, peers


def main() -> None:
    """Run both; exits 1 where something broke."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--workers", type=int, default=min(os.cpu_count() or 1, 8), help="processes for the messages"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on the last line")
    asked = parser.parse_args()
    workers = max(1, min(asked.workers, asked.messages))
    parts = [asked.messages // workers + (number < asked.messages % workers) for number in range(workers)]
    try:
        with ProcessPoolExecutor(workers, get_context("spawn")) as pool:
            running = [pool.submit(peers.run, part, asked.seed * 1_000 + n) for n, part in enumerate(parts)]
            by_peers = [asdict(each.result()) for each in running]
        by_api = asdict(asyncio.run(api.run(asked.requests, asked.seed))) if asked.requests else None
    except* (peers.Broken, api.Broken) as broken:
        sys.exit("\n".join(str(each) for each in broken.exceptions))
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    found = {"messages": by_peers, "requests": by_api, "machine": machine, "seed": asked.seed}
    print(json.dumps(found, indent=None if asked.json else 2))


if __name__ == "__main__":
    main()
