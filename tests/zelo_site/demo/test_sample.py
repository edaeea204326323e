"""The sample that the demo opens on: documents, questions, grades and the files they are written to."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from labeling.records import ImportedDocument
from zelo_site.demo.sample import sample_documents, sample_questions, write_sample
from zelo_site.demo.sample.docstrings import FEWEST_WORDS, MOST_CHARACTERS, shortened


@pytest.fixture(scope="module")
def documents() -> dict[str, ImportedDocument]:
    return {document.id: document for document in sample_documents()}


# --- documents ---------------------------------------------------------------------------


def test_there_are_thousands_of_documents_in_name_order(documents: dict[str, ImportedDocument]) -> None:
    assert 3000 < len(documents) < 8000
    assert list(documents) == sorted(documents)


def test_documents_are_the_same_on_every_call(documents: dict[str, ImportedDocument]) -> None:
    assert sample_documents() == list(documents.values())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("collections.deque", "sequence optimized for data accesses near its endpoints"),  # compiled
        ("str.replace", "substring old replaced by new"),  # built in
        ("shutil.rmtree", "delete a directory tree"),  # parsed
        ("asyncio.gather", "coroutines"),  # of a package whose modules are an inner matter
        ("unittest.mock.patch", "decorator"),  # of a module that stands for itself
        ("os.path.exists", "path exists"),  # written in a file of another name
        ("datetime.date.weekday", "day of the week"),
    ],
)
def test_known_names_carry_their_docstring(documents: dict[str, ImportedDocument], name: str, words: str) -> None:
    text = documents[name].text
    assert text.startswith(f"{name} — ")
    assert words in " ".join(text.split())


def test_no_docstring_is_repeated_trivial_or_too_long(documents: dict[str, ImportedDocument]) -> None:
    docstrings = [document.text.removeprefix(f"{name} — ") for name, document in documents.items()]
    assert len(set(docstrings)) == len(docstrings)
    assert min(len(text.split()) for text in docstrings) >= FEWEST_WORDS
    assert max(len(text) for text in docstrings) <= MOST_CHARACTERS


def test_names_are_public(documents: dict[str, ImportedDocument]) -> None:
    private = [name for name in documents if any(part.startswith("_") for part in name.split("."))]
    assert private == []


def test_texts_can_be_stored(documents: dict[str, ImportedDocument]) -> None:
    for document in documents.values():
        assert "\0" not in document.text
        document.text.encode("utf-8")


def test_collecting_prints_nothing_and_imports_no_surprises() -> None:
    code = (
        "import sys; from zelo_site.demo.sample import sample_documents; sample_documents();"
        "unwelcome = ('antigravity', 'this', 'tkinter', 'turtle', 'idlelib', 'test', 'webbrowser', 'pdb', 'torch', 'django');"
        "sys.exit(','.join(name for name in unwelcome if name in sys.modules) or 0)"
    )
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("text", "most", "expected"),
    [
        ("Short.", 20, "Short."),
        ("First paragraph.\n\nSecond one, which is long.", 30, "First paragraph."),
        ("One sentence. Another that does not fit.", 30, "One sentence."),
        ("no sentence ends in here at all", 17, "no sentence ends"),
        ("x" * 40, 10, "x" * 10),
        ("A. " + "b" * 12 + " c d e f", 20, "A. " + "b" * 12 + " c d"),
    ],
)
def test_long_docstrings_end_where_a_paragraph_sentence_or_word_ends(text: str, most: int, expected: str) -> None:
    assert shortened(text, most) == expected


# --- questions ---------------------------------------------------------------------------


def test_questions_are_many_over_many_areas() -> None:
    questions = sample_questions()
    assert len(questions) >= 48
    assert len({question.domain for question in questions}) >= 25
    assert len({question.id for question in questions}) == len(questions)
    assert len({question.text for question in questions}) == len(questions)


def test_every_question_has_an_exact_answer_and_three_grades() -> None:
    for question in sample_questions():
        assert len(question.grades) >= 3, question.id
        assert max(question.grades.values()) == 3, question.id
        assert set(question.grades.values()) <= {1, 2, 3}, question.id


def test_graded_names_are_documents(documents: dict[str, ImportedDocument]) -> None:
    graded = [(question.id, name) for question in sample_questions() for name in question.grades]
    missing = [pair for pair in graded if pair[1] not in documents]
    # Graded on 3.11; a later version may have moved or renamed a few.
    assert missing == [] if sys.version_info[:2] == (3, 11) else len(missing) < 0.05 * len(graded)


def test_grades_of_absent_documents_are_dropped() -> None:
    names = {"collections.deque", "itertools.islice"}
    question = next(question for question in sample_questions(names) if question.id == "keep-last-lines")
    assert question.grades == {"collections.deque": 3, "itertools.islice": 1}


# --- files -------------------------------------------------------------------------------


def test_files_hold_the_sample_and_agree(tmp_path: Path, documents: dict[str, ImportedDocument]) -> None:
    paths = write_sample(tmp_path / "new" / "folder")
    corpus = [json.loads(line) for line in paths.documents.read_text(encoding="utf-8").splitlines()]
    queries = [json.loads(line) for line in paths.queries.read_text(encoding="utf-8").splitlines()]
    qrels = [line.split() for line in paths.qrels.read_text(encoding="utf-8").splitlines()]

    assert [row["id"] for row in corpus] == list(documents)
    assert corpus[0] == {
        "id": corpus[0]["id"],
        "content": documents[corpus[0]["id"]].text,
        "metadata": documents[corpus[0]["id"]].metadata,
    }
    assert set(queries[0]) == {"id", "query", "metadata"} and set(queries[0]["metadata"]) == {"domain"}
    assert {row[0] for row in qrels} == {row["id"] for row in queries}
    assert {row[2] for row in qrels} <= documents.keys()
    assert all(len(row) == 4 and row[1] == "0" and int(row[3]) in (1, 2, 3) for row in qrels)
