"""The sample's recorded panel: packing, finding its texts in another Python, and the figures of its report."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from labeling.annotation.answer_scale import PREFERENCES as SCALE
from labeling.records import ImportedDocument
from tests.factories.world.panels import make_panel, write_panel
from workers.judges.recording_file import read_answers
from zelo_site.demo.sample import sample_documents
from zelo_site.demo.sample.packing import BadPanel, pack
from zelo_site.demo.sample.panel import PREFERENCES, sample_panel
from zelo_site.demo.sample.report import BEGIN, END, main, report

ROOT = Path(__file__).parents[3]
DOCUMENTS = [ImportedDocument(id=f"d{number:02}", text=f"text {number}") for number in range(45)]


def test_what_was_packed_is_read_and_can_be_uploaded(tmp_path: Path) -> None:
    panel = make_panel(tmp_path, DOCUMENTS)
    assert (len(panel.questions), len(panel.answers)) == (9, 3 * 10 * 3 + 6 * 10)
    lines = tmp_path / "lines.jsonl"
    lines.write_bytes(b"".join(panel.lines()))
    with lines.open("rb") as stream:
        read = list(read_answers(stream))
    assert [each.preference for each in read] == [each.preference for each in panel.answers]
    assert all(each.first_hash and each.second_hash for each in read)
    assert len(panel.only({"graded-0"}).answers) == 30


def test_verdicts_stand_for_the_steps_of_the_answer_scale() -> None:
    assert list(PREFERENCES.values()) == list(SCALE.values())


def test_texts_that_another_python_words_differently_are_left_out_and_counted(tmp_path: Path) -> None:
    panel = make_panel(tmp_path, DOCUMENTS)
    texts = {each.id: each.text for each in DOCUMENTS}
    assert (panel.found(texts).known, panel.found(texts).left_out) == (len(panel.answers), 0)
    texts["d00"] += " in other words"
    del texts["d15"]
    found = panel.found(texts)
    assert found.left_out == 4 * 3 + 4
    assert found.candidates["graded-0"] == ("d04", "d03", "d02", "d01")
    assert "d15" not in found.candidates["training-3"]


def test_a_graded_question_without_a_good_candidate_tests_nothing(tmp_path: Path) -> None:
    panel = make_panel(tmp_path, DOCUMENTS)
    assert panel.test_ids == {"graded-0", "graded-1", "graded-2"}
    none_good = {**panel.grades, "graded-1": dict.fromkeys(panel.grades["graded-1"], 0)}
    assert replace(panel, grades=none_good).test_ids == {"graded-0", "graded-2"}


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        ("answers.jsonl", {"score": 0.3}, "answer 1: score 0.3"),
        ("answers.jsonl", {"a": "d44"}, "answer 1: not two candidates of 'graded-0'"),
        ("grades.jsonl", {"grade": 4}, "grade 1: 4"),
        ("grades.jsonl", {"grade": 2}, r"grade 1: 2 is not the smallest of \[3, 3\]"),
        ("grades.jsonl", {"query": "training-3", "document": "d15"}, "grade 1: no candidate of a graded question"),
    ],
)
def test_files_that_contradict_each_other_are_not_packed(
    tmp_path: Path, name: str, change: dict[str, object], said: str
) -> None:
    write_panel(tmp_path, DOCUMENTS)
    first, *rest = (tmp_path / name).read_text().splitlines()
    (tmp_path / name).write_text("\n".join([json.dumps(json.loads(first) | change), *rest]))
    with pytest.raises(BadPanel, match=said):
        pack(tmp_path, tmp_path / "packed")
    assert not (tmp_path / "packed").exists()


def test_the_report_counts_agreement_and_bias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    panel = make_panel(tmp_path, DOCUMENTS)
    said = report(panel)
    assert "| test | 3 | 15 | 30 | 90 | 9 |" in said
    assert "| documents | 3 of 15 | 3 of 15 | 3 of 15 | 6 of 15 |" in said
    assert "| `direct`, `task` | 30 | 100.0% | – | 0.0% |" in said  # always the same side: kappa is undefined
    assert "| `critic` | 100.0% of 27 | 100.0% of 12 | 100.0% of 9 | 100.0% of 6 | 0.0% of 3 |" in said
    assert "| `direct` | 50.0% | 0.0% | 0.0% | 50.0% | 0.0% | +0.100 ± 0.094 |" in said
    file = tmp_path / "sample.md"
    file.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    monkeypatch.setattr("zelo_site.demo.sample.report.sample_panel", lambda: panel)
    monkeypatch.setattr(sys, "argv", ["report", "--write", str(file)])
    main()
    assert file.read_text() == f"before\n{BEGIN}\n{said}{END}\nafter\n"


def test_nearly_all_of_the_shipped_panel_is_about_texts_of_this_python() -> None:
    panel = sample_panel()
    found = panel.found({each.id: each.text for each in sample_documents()})
    least = 0.99 if sys.version_info[:2] == (3, 11) else 0.6  # a test may import what changes a docstring
    assert found.known >= least * len(panel.answers)
    assert len(panel.answers) >= 20_000 and len(panel.questions) >= 300 and len(panel.test_ids) >= 80


def test_figures_in_the_documentation_are_those_of_the_shipped_panel() -> None:
    documented = ROOT.joinpath("docs", "sample.md").read_text("utf-8")
    figures = documented.partition(BEGIN)[2].partition(END)[0].strip()
    if sys.version_info[:2] == (3, 11):  # other versions find fewer texts
        # In a process of its own: what tests import may change a docstring.
        command = [sys.executable, "-m", "zelo_site.demo.sample.report"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout
        assert figures == printed.strip()
