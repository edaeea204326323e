"""Claim: the demo proves what zelo promises, in minutes: the panel's Elo beats every judge, and the student its base.

Starts `manage.py demo` in a home of its own, as a user would after the installation, and reads its table and its leaderboard.
Figures are NDCG@10 on the graded test questions; the differences of the student carry paired 95 % intervals. Times count from the
printed link.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.first_minutes import Demo, DemoFailed, browser, open_page, running_demo

ROW = re.compile(r"^(?P<name>\S.*?)\s{2,}(?P<value>\d\.\d{3})\s+\d\.\d{3} – \d\.\d{3}")
TABLE_ENDS, PROVED = "graded test questions, linear gain", "graded test questions, none used in training"
LIMIT_S = 3600.0  # also on a busy machine
BEGIN, END = "<!-- demo: begin -->", "<!-- demo: end -->"
TARGETS = {
    "elo_over_best_weak_judge": "> .10", "elo_over_best_panel_judge": "> 0", "student_over_base": "> 0",
    "student_over_first_stage": "> 0", "elo_table_s": "<= 90", "proof_s": "<= 360",
}  # fmt: skip
WEAK = ("BM25", "query likelihood", "embedding (MiniLM)")


def wait_for(demo: Demo, text: str) -> float:
    """The second in which a line with this text was printed."""
    while time.monotonic() - demo.began < LIMIT_S:
        for at, line in list(demo.lines):
            if text in line:
                return at
        if demo.process.poll() is not None:
            break
        time.sleep(0.1)
    raise DemoFailed(f"no line with {text!r} was printed; it said:\n" + "".join(line for _, line in demo.lines[-40:]))


def table_of(lines: Iterable[str]) -> dict[str, float]:
    """NDCG@10 by the name of the order."""
    return {found["name"]: float(found["value"]) for line in lines if (found := ROW.match(line))}


def against(board: dict[str, Any], rival: str) -> dict[str, float | None]:
    """The student's difference to a rival, with its interval; None where no student was published."""
    student = next((row for row in board["rows"] if row["kind"] == "trained"), None)
    if student is None:
        return dict.fromkeys(("difference", "low", "high"))
    found = student["against"][rival]
    return {"difference": found["estimate"], "low": found["low"], "high": found["high"]}


def measure(home: Path, port: int, *arguments: str) -> dict[str, Any]:
    """Run the demo to its proof and stop it."""
    with running_demo(home, port, *arguments) as demo:
        link_s, link, slug = demo.link()
        table_s = wait_for(demo, TABLE_ENDS) - link_s
        rows = table_of(line for _, line in demo.lines)
        proof_s = wait_for(demo, PROVED) - link_s
        visitor = browser()
        open_page(visitor, link, f"/p/{slug}/")
        address = f"{link.split('/enter/')[0]}/api/v1/projects/{slug}/leaderboard"
        board = json.loads(visitor.open(address, timeout=60).read())
    elo = rows["Elo of the panel"]
    base, first_stage = (against(board, rival) for rival in ("base", "first_stage"))
    return {
        "elo_over_best_weak_judge": round(elo - max(rows[name] for name in WEAK), 4),
        "elo_over_best_panel_judge": round(
            elo - max(value for name, value in rows.items() if name.startswith("panel judge ")), 4
        ),
        "student_over_base": base["difference"],
        "student_over_base_interval": [base["low"], base["high"]],
        "student_over_first_stage": first_stage["difference"],
        "student_over_first_stage_interval": [first_stage["low"], first_stage["high"]],
        "elo_table_s": round(table_s, 1),
        "proof_s": round(proof_s, 1),
        "table": rows,
        "board": {row["name"]: row["metrics"]["ndcg@10"]["estimate"] for row in board["rows"]},
    }


def markdown(figures: dict[str, Any]) -> str:
    """The demo's table and times, as the README shows them."""
    student = {name: value for name, value in figures["board"].items() if name not in figures["table"]}
    chosen = [
        ("the student" if " · " in name else name, value)
        for name, value in student.items()
        if not name.startswith(("judge ", "Elo"))
    ]
    rows = [f"| {name} | {value:.3f} |" for name, value in [*figures["table"].items(), *chosen]]
    low, high = figures["student_over_base_interval"]
    gain = (
        f"The student against its untrained base: {figures['student_over_base']:+.3f} ({low:+.3f} to {high:+.3f})."
        if low is not None
        else "The student was held back: no checkpoint ranked better than its untrained base."
    )
    return "\n".join(
        [
            "| order of the test questions' candidates | NDCG@10 |", "|---|---|", *rows, "",
            f"{gain} On two cores the table is printed {figures['elo_table_s']:.0f} s after the link, the proof after "
            f"{figures['proof_s'] / 60:.1f} minutes "
            "(`benchmarks/demo.py`).",
        ]
    )  # fmt: skip


def write_between_marks(file: Path, text: str) -> None:
    """Replace what stands between the two marks of a Markdown file."""
    head, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise DemoFailed(f"{file} lacks the marks {BEGIN} and {END}; add both")
    file.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8178)
    parser.add_argument("--questions", type=int, default=0, help="number of test questions (0: all)")
    parser.add_argument(
        "--write", type=Path, help="Markdown file whose marked part becomes the table, such as README.md"
    )
    parser.add_argument(
        "--home", type=Path, help="new folder for the demo's data, which is kept; a temporary one otherwise"
    )
    options = parser.parse_args()
    if options.home is not None and options.home.exists():
        raise DemoFailed(f"{options.home} exists; name a new folder, so that the demo starts from nothing")
    with tempfile.TemporaryDirectory(prefix="zelo-") as folder:
        home = options.home or Path(folder) / "home"
        figures = measure(home, options.port, "--questions", str(options.questions))
    print(f"{'':28}{'measured':>12}{'target':>10}")
    for name, target in TARGETS.items():
        shown = "held back" if figures[name] is None else f"{figures[name]:.3f}"
        print(f"{name:28}{shown:>12}{target:>10}")
    print(json.dumps(figures))
    if options.write is not None:
        write_between_marks(options.write, markdown(figures))


if __name__ == "__main__":
    main()
