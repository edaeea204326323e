"""A small recorded panel over invented answers, in the files of the sample's own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from labeling.records import ImportedDocument
from zelo_site.demo.sample.packing import pack
from zelo_site.demo.sample.panel import Panel, read_panel, text_hash

JUDGES = ("direct", "task", "critic")


def write_panel(folder: Path, documents: Sequence[ImportedDocument], *, graded: int = 3, training: int = 6) -> None:
    """Write questions whose first candidate is best, and so on; answers of three judges, or of one a pair in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    questions, answers, grades = [], [], []
    for number in range(graded + training):
        part = "graded" if number < graded else "training"
        own = documents[number * 5 : number * 5 + 5]
        questions.append(
            {"id": f"{part}-{number}", "domain": "d", "text": f"What is question {number} of all?", "part": part,
             "candidates": [[each.id, text_hash(each.text)] for each in reversed(own)]}
        )  # fmt: skip
        for turn, (better, worse) in enumerate(itertools.combinations(own, 2)):
            a, b, score = (better, worse, -0.9) if turn % 2 else (worse, better, 0.4)
            for judge in JUDGES if part == "graded" else (JUDGES[turn % 3],):
                row = {"query": f"{part}-{number}", "a": a.id, "b": b.id, "judge": judge, "score": score}
                answers.append(row | ({"rationale": "It names the very thing."} if turn == 0 else {}))
        if part == "graded":
            grades += [
                {
                    "query": f"{part}-{number}",
                    "document": each.id,
                    "grade": max(0, 3 - place),
                    "passes": [3, max(0, 3 - place)],
                }
                for place, each in enumerate(own)
            ]
    (folder / "questions.json").write_text(json.dumps(questions))
    (folder / "answers.jsonl").write_text("\n".join(map(json.dumps, answers)))
    (folder / "grades.jsonl").write_text("\n".join(map(json.dumps, grades)))
    (folder / "prompts.json").write_text(json.dumps(dict.fromkeys(JUDGES, "Which is better?")))


def make_panel(folder: Path, documents: Sequence[ImportedDocument], *, graded: int = 3, training: int = 6) -> Panel:
    """The panel of `write_panel`, packed and read."""
    write_panel(folder / "made", documents, graded=graded, training=training)
    pack(folder / "made", folder / "packed")
    return read_panel(folder / "packed")
