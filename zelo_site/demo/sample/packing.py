"""`python -m zelo_site.demo.sample.packing FOLDER`: checks a recorded panel and packs it into the sample.

FOLDER holds questions.json, answers.jsonl, grades.jsonl and prompts.json as `panel` describes them. Imports no Django.
"""

from __future__ import annotations

import argparse
import gzip
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zelo_site.demo.sample.panel import ANSWERS, FOLDER, GRADED, GRADES, PREFERENCES, PROMPTS, QUESTIONS, TRAINING

MOST_BYTES = 3_000_000
SHOWN = 10
GRADE_RANGE = range(4)


class BadPanel(ValueError):
    """The files contradict each other; the message lists the first problems."""


def pack(source: Path, target: Path) -> int:
    """Write the packed files into `target`; return their bytes. Raises BadPanel, and then writes nothing."""
    questions = json.loads((source / "questions.json").read_text(encoding="utf-8"))
    answers, grades = (_lines(source / name) for name in ("answers.jsonl", "grades.jsonl"))
    prompts = json.loads((source / "prompts.json").read_text(encoding="utf-8"))
    if problems := list(_problems(questions, answers, grades, prompts)):
        more = f"; and {len(problems) - SHOWN:,} more" if len(problems) > SHOWN else ""
        raise BadPanel("; ".join(problems[:SHOWN]) + more)
    packed = {
        QUESTIONS: _packed([json.dumps(questions, ensure_ascii=False)]),
        ANSWERS: _packed(json.dumps({k: v for k, v in row.items() if v != ""}, ensure_ascii=False) for row in answers),
        GRADES: _packed(json.dumps(row, ensure_ascii=False) for row in grades),
        PROMPTS: json.dumps(prompts, ensure_ascii=False, indent=1).encode() + b"\n",
    }
    size = sum(map(len, packed.values()))
    if size > MOST_BYTES:
        raise BadPanel(f"the packed files have {size:,} bytes; expected at most {MOST_BYTES:,}")
    target.mkdir(parents=True, exist_ok=True)
    for name, data in packed.items():
        (target / name).write_bytes(data)
    return size


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _packed(lines: Iterable[str]) -> bytes:
    return gzip.compress("".join(f"{line}\n" for line in lines).encode(), mtime=0)


def _problems(
    questions: Sequence[Mapping[str, Any]],
    answers: Sequence[Mapping[str, Any]],
    grades: Sequence[Mapping[str, Any]],
    prompts: Mapping[str, str],
) -> Iterable[str]:
    names = {each["id"]: {name for name, _ in each["candidates"]} for each in questions}
    parts = {each["id"]: each["part"] for each in questions}
    if len(names) < len(questions):
        yield "a question occurs twice"
    for each in questions:
        if each["part"] not in (GRADED, TRAINING):
            yield f"question {each['id']} has the part {each['part']!r}"
        if len(names[each["id"]]) < len(each["candidates"]):
            yield f"question {each['id']} names a candidate twice"
    seen: Counter[tuple[str, frozenset[str], str]] = Counter()
    for number, row in enumerate(answers, start=1):
        where, pair = f"answer {number}", {row["a"], row["b"]}
        if not pair <= names.get(row["query"], set()) or len(pair) != 2:
            yield f"{where}: not two candidates of {row['query']!r}"
        if row["score"] not in PREFERENCES or row["judge"] not in prompts:
            yield f"{where}: score {row['score']!r}, judge {row['judge']!r}"
        seen[row["query"], frozenset(pair), row["judge"]] += 1
    for (query, _, judge), count in seen.items():
        if count > 1:
            yield f"judge {judge} answers a pair of {query} {count} times"
    for number, row in enumerate(grades, start=1):
        if row["document"] not in names.get(row["query"], set()) or parts.get(row["query"]) != GRADED:
            yield f"grade {number}: no candidate of a graded question"
        if row["grade"] not in GRADE_RANGE:
            yield f"grade {number}: {row['grade']!r}"
        elif row["grade"] != min(row["passes"]):
            yield f"grade {number}: {row['grade']} is not the smallest of {row['passes']}"
    graded = Counter(row["query"] for row in grades)
    for query, part in parts.items():
        if part == GRADED and graded[query] != len(names[query]):
            yield f"question {query} has {graded[query]} grades for {len(names[query])} candidates"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--target", type=Path, default=Path(__file__).parent / FOLDER)
    options = parser.parse_args()
    print(f"{pack(options.folder, options.target):,} bytes in {options.target}")


if __name__ == "__main__":
    main()
