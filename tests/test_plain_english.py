"""Private words that must not come back in what people read: page texts, messages, commands, documents.

The list grows when somebody meets another one; `CONTRIBUTING.md` says which word of the field to use instead.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator
from functools import cache

import pytest

from tests.tree import PACKAGES, ROOT, parsed, sources

# Each is searched as whole words, in any case.
PRIVATE = (
    "told", "deed", "deeds", "purse", "desk", "desks", "seat", "seats", "mend", "mends", "mended", "is well", "are well",
    "gone", "asked again", "half-written", "contender", "contenders", "allowance", "allowances", "the dead",
    "clean slate", "leads to nothing", "let go on", "expected it to live", "fell into islands", "hears of",
    "in the making", "needs you", "not now", "at most so many", "another of these", "the first answers will tell",
    "what the fit makes", "not yours to do", "that is not yours", "can be asked why", "all of a file is stored",
    "no good row", "as far as it was read", "goes on within", "waiting for answers of", "hardly among",
    "is relevance what people say", "gpu that knows", "deals the queries", "yours for",
    "goes on", "went on", "going on", "anew", "asked nothing", "asked no more", "served no more", "takes no orders",
    "was stored before", "not by itself", "by themselves", "stays so", "batch is out", "batches are out", "at work", "tells most",
)  # fmt: skip
PATTERN = re.compile(r"(?<![\w-])(" + "|".join(map(re.escape, PRIVATE)) + r")(?![\w-])(?! apart)", re.IGNORECASE)
# "is no list" for "is not a list"; "there is no list" is English.
NEGATED = re.compile(
    r"(?<!there )\b(is|are|was) no (?!longer|more|less|better|worse|lower|higher)[a-z]+", re.IGNORECASE
)
QUESTION = re.compile(r"(What|Where|Who|Whom|Whoever|Whatever|Which|How|That)\b(?![^.]*\?)")
COUNTED = re.compile(r"\b1 (judges|queries|pairs|answers|documents|calls)\b")


def found_in(texts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{where}: {text[:120]!r}" for where, text in texts if PATTERN.search(text) or COUNTED.search(text)]


def negated_in(texts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{where}: {text[:120]!r}" for where, text in texts if NEGATED.search(text)]


def docstrings() -> Iterator[tuple[str, str]]:
    for path in sources(*PACKAGES):
        for node in ast.walk(parsed(path)):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield f"{path.relative_to(ROOT)}: {getattr(node, 'name', '')}", ast.get_docstring(node) or ""


def catalogue() -> Iterator[tuple[str, str]]:
    """The English of every text that is marked for translation: pages, labels, options, stored sentences."""
    where, text = "", ""
    for line in (ROOT / "locale/de/LC_MESSAGES/django.po").read_text(encoding="utf-8").splitlines():
        if line.startswith("#: "):
            where = line[3:]
        if line.startswith(("msgid ", "msgid_plural ")):
            text = ast.literal_eval(line.partition(" ")[2])
        elif line.startswith('"') and text is not None:
            text += ast.literal_eval(line)
        elif line.startswith("msgstr"):
            yield where, text
            text = ""


def messages() -> Iterator[tuple[str, str]]:
    """Sentences in the code: errors, what commands print, help texts, and docstrings of REST, which its schema shows."""
    for path in sources(*PACKAGES):
        tree = parsed(path)
        docstrings = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and "api" not in path.parts
        }
        for node in ast.walk(tree):
            if not isinstance(node, ast.Constant) or id(node) in docstrings:
                continue
            if isinstance(node.value, str) and " " in node.value.strip() and not _is_sql(node.value):
                yield f"{path.relative_to(ROOT)}:{node.lineno}", node.value


def _is_sql(text: str) -> bool:
    return (
        re.search(r"\b(SELECT|INSERT INTO|UPDATE \w+ SET|DELETE FROM|JOIN|WHERE|ORDER BY|COPY|CREATE)\b", text)
        is not None
    )


def documents() -> Iterator[tuple[str, str]]:
    for path in (ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            yield f"{path.relative_to(ROOT)}:{number}", re.sub(r"`[^`]*`", "", line)


@cache
def read(texts: Callable[[], Iterator[tuple[str, str]]]) -> list[tuple[str, str]]:
    """The texts, found once for all tests: parsing all sources takes seconds."""
    return list(texts())


@pytest.fixture(scope="module", autouse=True)
def no_tree_stays_in_memory() -> Iterator[None]:
    yield
    parsed.cache_clear()


def test_marked_texts_have_no_private_words() -> None:
    assert len(read(catalogue)) > 1000, "the scan itself must find something"
    assert found_in(read(catalogue)) == []
    assert negated_in(read(catalogue)) == []


def test_messages_have_no_private_words() -> None:
    assert len(read(messages)) > 500, "the scan itself must find something"
    assert found_in(read(messages)) == []
    assert negated_in(read(messages)) == []


def test_documents_have_no_private_words() -> None:
    assert found_in(read(documents)) == []


def test_docstrings_begin_with_what_they_describe_not_with_a_question_word() -> None:
    assert sum(bool(text) for _, text in read(docstrings)) > 3000, "the scan itself must find something"
    assert [where for where, text in read(docstrings) if QUESTION.match(text)] == []


@pytest.mark.parametrize(
    ("text", "is_found"), [("'x' is no list", True), ("there is no list", False), ("it is no longer", False)]
)
def test_negations_are_found(text: str, is_found: bool) -> None:
    assert bool(negated_in(iter([("here", text)]))) is is_found


@pytest.mark.parametrize("text", ["People are told so", "mend the lines", "1 judges", "It is gone."])
def test_private_words_are_found(text: str) -> None:
    assert found_in(iter([("here", text)]))


@pytest.mark.parametrize(
    "text", ["deskew", "recommend", "11 judges", "goneness", "`told` in a template", "not told apart"]
)
def test_other_words_are_not(text: str) -> None:
    assert not found_in(iter([("here", re.sub(r"`[^`]*`", "", text))]))
