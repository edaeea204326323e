"""The cost of the write-ahead log for answers: microseconds per answer, in batches as workers store them.

`write` passes each answer to the operating system on arrival; `sync` waits for the disk, once per batch; `drop` empties the
file. The share is that of a worker that stores 320 answers a second. `--quick` keeps fewer batches.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages

ANSWERS_PER_S = 320
VALUE = {
    "database": "2026-01-01 00:00:00.000000+00",
    "task": [123456, 1, 1, 12, 345678, 3, False],
    "verdict": {
        "preference": 0.7310585786300049,
        "kind": "preference",
        "rationale": "The first document answers the question; the second one only mentions its subject. " * 2,
        "truncated": False,
        "usage": [612, 41, 311, 0.512345, []],
    },
}


def measure(folder: Path, *, batch: int, batches: int) -> dict[str, float]:
    """Seconds an answer for each step, the median over batches."""
    from workers.spool import Spool

    spool = Spool(folder)
    steps: dict[str, list[float]] = {"write": [], "sync": [], "drop": []}
    for number in range(batches):
        keys = [(number, place) for place in range(batch)]
        times = [time.perf_counter()]
        for key in keys:
            spool.write(key, VALUE)
        times.append(time.perf_counter())
        spool.sync()
        times.append(time.perf_counter())
        spool.drop(list(keys))
        times.append(time.perf_counter())
        for step, before, after in zip(steps, times, times[1:], strict=False):
            steps[step].append((after - before) / batch)
    spool.close()
    return {step: sorted(values)[len(values) // 2] for step, values in steps.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="20 batches of each size instead of 200")
    parser.add_argument("--folder", type=Path, help="where to write (default: a new folder in the current one's disk)")
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "zelo_site.settings")
    batches = 20 if options.quick else 200
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        found = {batch: measure(Path(folder), batch=batch, batches=batches) for batch in (1, 16, 64, 256)}
    print(f"{'answers a batch':>16}{'write us':>10}{'sync us':>10}{'drop us':>10}{'share at 320/s':>16}")
    shares = {}
    for batch, steps in found.items():
        shares[batch] = sum(steps.values()) * ANSWERS_PER_S
        columns = "".join(f"{1e6 * steps[step]:>10.1f}" for step in ("write", "sync", "drop"))
        print(f"{batch:>16}{columns}{shares[batch]:>15.2%} ")
    print(
        json.dumps(
            {
                "us_an_answer": round(1e6 * sum(found[64].values()), 1),
                "write_us": round(1e6 * found[64]["write"], 1),
                "share_at_320_per_s": round(shares[64], 4),
            }
        )
    )


if __name__ == "__main__":
    main()
