"""`python -m zelo_site.demo.sample.report`: figures of the recorded panel as Markdown, as `docs/sample.md` shows them.

Counts, agreement of the judges with each other and with the grades, position bias, and the grades against those made by hand. With
`--write FILE` it replaces the part of FILE between its two marks. Imports no Django.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labeling.records import FloatArray
from scoring.numerics.measures.metrics import cohen_kappa
from scoring.numerics.measures.sides import agreement, side
from zelo_site.demo.sample.docstrings import sample_documents
from zelo_site.demo.sample.panel import PREFERENCES, Panel, PanelAnswer, sample_panel
from zelo_site.demo.sample.questions import sample_questions

BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"
VERDICTS = dict(
    zip(
        PREFERENCES.values(),
        ("first clearly", "first slightly", "tie", "second slightly", "second clearly"),
        strict=True,
    )
)
Z95 = 1.96
Key = tuple[str, str, str]


def report(panel: Panel) -> str:
    """Return all figures as Markdown."""
    parts = (
        _counts(panel),
        _found(panel),
        _verdicts(panel),
        _between(panel),
        _with_grades(panel),
        _passes(panel),
        _by_hand(panel),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def _counts(panel: Panel) -> str:
    test = panel.test_ids
    graded = {each.id for each in panel.questions if each.id in panel.grades} - test
    parts = {
        "test": test,
        "graded, no good candidate (training)": graded,
        "training": {each.id for each in panel.questions} - graded - test,
    }
    rows = []
    for part, ids in parts.items():
        own = panel.only(ids)
        pairs = {_pair(each) for each in own.answers}
        reasons = sum(bool(each.rationale) for each in own.answers)
        candidates = sum(len(each.candidates) for each in own.questions)
        numbers = (len(own.questions), candidates, len(pairs), len(own.answers), reasons)
        rows.append([part, *(f"{n:,}" for n in numbers)])
    return _table(["part", "questions", "candidates", "pairs", "answers", "with a reason"], rows)


def _found(panel: Panel) -> str:
    found = panel.found({each.id: each.text for each in sample_documents()})
    return f"With this Python, {found.known:,} of {len(panel.answers):,} answers are about the texts that were judged; {found.left_out:,} are left out."


def _verdicts(panel: Panel) -> str:
    rows = []
    for judge in panel.prompts:
        own = np.array([each.preference for each in panel.answers if each.judge == judge])
        if not len(own):
            continue
        counts = Counter(own.tolist())
        shares = [f"{counts[value] / len(own):.1%}" for value in VERDICTS]
        error = Z95 * float(np.std(own, ddof=1)) / len(own) ** 0.5 if len(own) > 1 else float("nan")
        rows.append([f"`{judge}`", *shares, f"{own.mean() - 0.5:+z.3f} ± {error:.3f}"])
    header = ["judge", *VERDICTS.values(), "position bias"]
    return (
        _table(header, rows)
        + "\n\nPosition bias: the mean preference for the text shown first, less one half (0: none). Which text stands first was drawn "
        "at random; no pair was asked in both orders."
    )


def _pair(answer: PanelAnswer) -> Key:
    a, b = sorted((answer.a, answer.b))
    return answer.query, a, b


def _of_pairs(panel: Panel, judge: str) -> dict[Key, float]:
    """P(the document whose name comes first is better), by pair."""
    return {
        _pair(each): each.preference if each.a < each.b else 1.0 - each.preference
        for each in panel.answers
        if each.judge == judge
    }


def _between(panel: Panel) -> str:
    own = {judge: _of_pairs(panel, judge) for judge in panel.prompts}
    rows = []
    for first, second in itertools.combinations(panel.prompts, 2):
        common = sorted(own[first].keys() & own[second].keys())
        if not common:
            continue
        one, other = (np.array([own[judge][pair] for pair in common]) for judge in (first, second))
        agreed = agreement(one, other)
        rows.append(
            [f"`{first}`, `{second}`", f"{len(common):,}", f"{agreed.hits / agreed.count:.1%}",
             _two_digits(cohen_kappa(side(one), side(other))), f"{_opposite(one, other):.1%}"]
        )  # fmt: skip
    header = [
        "judges",
        "common pairs",
        "agreement (a tie against a side: half)",
        "Cohen's kappa of sides",
        "opposite sides",
    ]
    return _table(header, rows)


def _two_digits(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"


def _opposite(one: FloatArray, other: FloatArray) -> float:
    return float(np.mean((one - 0.5) * (other - 0.5) < 0.0))


def _with_grades(panel: Panel) -> str:
    rows = []
    for judge in panel.prompts:
        apart: dict[int, list[float]] = {1: [], 2: [], 3: []}
        ties = []
        for (query, a, b), preference in _of_pairs(panel, judge).items():
            grades = panel.grades.get(query)
            if grades is None:
                continue
            difference = grades[a] - grades[b]
            if difference == 0:
                ties.append(float(preference == 0.5))
            else:
                for_better = preference if difference > 0 else 1.0 - preference
                apart[abs(difference)].append(1.0 if for_better > 0.5 else 0.5 if for_better == 0.5 else 0.0)
        whole = [value for values in apart.values() for value in values]
        cells = [
            f"{np.mean(values):.1%} of {len(values):,}" if values else "–" for values in (whole, *apart.values(), ties)
        ]
        rows.append([f"`{judge}`", *cells])
    header = ["judge", "pairs of different grades", "one grade apart", "two", "three", "ties where grades are equal"]
    return _table(header, rows)


def _passes(panel: Panel) -> str:
    """Agreement of the two passes that gave the grades."""
    given = [passes for own in panel.passes.values() for passes in own.values()]
    apart = Counter(max(passes) - min(passes) for passes in given)
    cells = [f"{apart[steps]:,} of {len(given):,}" for steps in range(4)]
    return _table(["grades of two passes", "same", "one apart", "two", "three"], [["documents", *cells]])


def _by_hand(panel: Panel) -> str:
    """The panel's grades against those that were made by hand, which name only the good documents; empty if they are the same."""
    hand = {each.id: each.grades for each in sample_questions()}
    table: Counter[tuple[int, int]] = Counter()
    for query, grades in panel.grades.items():
        for name, grade in grades.items():
            table[hand.get(query, {}).get(name, 0), grade] += 1
    if all(one == other for one, other in table):
        return ""
    rows = [[by_hand, *(f"{table[by_hand, grade]:,}" for grade in range(4))] for by_hand in range(4)]
    header = ["grade by hand (0: not named)", "recorded 0", "1", "2", "3"]
    return _table(header, rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="Markdown file with the two marks")
    options = parser.parse_args()
    text = report(sample_panel())
    if options.write is None:
        print(text)
        return
    write_between(options.write, text, marks=(BEGIN, END))


def write_between(file: Path, text: str, *, marks: tuple[str, str]) -> None:
    """Replace what stands between two marks of a Markdown file. Exits with a message if the file lacks them."""
    begin, end = marks
    head, _, rest = file.read_text(encoding="utf-8").partition(begin)
    _, mark, tail = rest.partition(end)
    if not mark:
        raise SystemExit(f"{file} lacks the marks {begin} and {end}; add both")
    file.write_text(f"{head}{begin}\n{text}{end}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
