"""No odd reply yields a preference that its final answer does not state: wrong votes and needless failures of the reader.

The bodies come from a grammar that knows each answer, and from a table of known servers' shapes. `--reader FILE` reads them with
another module of the same functions, such as an older `answers.py`.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from itertools import chain
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder, whose names would shadow packages


def reader_at(path: Path | None) -> Any:
    """The product's reader, or the module in a file."""
    if path is None:
        from workers.judges.openai import answers

        return answers
    spec = importlib.util.spec_from_file_location("other_reader", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["other_reader"] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    from tests.factories.replies.odd_bodies import odd_bodies
    from tests.factories.replies.reading_checks import check
    from tests.factories.replies.server_bodies import server_bodies

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3,000 bodies instead of 30,000")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--reader", type=Path, help="a module with read_score, read_votes and read_logprobs")
    options = parser.parse_args()
    count = 3_000 if options.quick else 30_000
    found = check(reader_at(options.reader), chain(server_bodies(), odd_bodies(count, seed=options.seed)))
    print(f"{'mode':<10}{'bodies':>8}{'stating':>9}{'wrong':>8}{'needless':>10}  most frequent wrong")
    for mode, each in found.items():
        worst = ", ".join(f"{name} {number}" for name, number in each.worst()[:3])
        print(f"{mode:<10}{each.bodies:>8}{each.stating:>9}{len(each.wrong):>8}{len(each.needless):>10}  {worst[:100]}")
    stating = sum(each.stating for each in found.values())
    figures = {
        "wrong_votes": sum(len(each.wrong) for each in found.values()),
        "needless_failures": round(sum(len(each.needless) for each in found.values()) / stating, 5),
        "bodies": sum(each.bodies for each in found.values()),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
