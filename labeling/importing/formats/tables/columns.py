"""The roles of a table's columns, guessed from the names and corrected by options. Imports no Django."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from labeling.importing.archives import refused
from labeling.importing.formats import fields
from labeling.importing.formats.pair_rows import Pair
from labeling.importing.formats.value_checks import MAX_ID_CHARACTERS, is_blank
from labeling.importing.lines import RowError
from labeling.importing.strict_json import printable, quoted

NONE = "-"
MAX_RATER_CHARACTERS = 200
ROLES = ("query_id", "query", "document_id", "document", "title", "rank", "score", "grade", "rater")
# Names after lower() and without all but letters and digits, the likeliest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "query_id": ("queryid", "qid", "topicid", "topicno", "topic", "qno", "searchid", "questionid"),
    "query": (
        "query",
        "querytext",
        "searchquery",
        "searchterm",
        "question",
        "keywords",
        "keyword",
        "search",
        "anchor",
        "q",
    ),
    "document_id": (
        "documentid",
        "docid",
        "corpusid",
        "passageid",
        "productid",
        "itemid",
        "pid",
        "did",
        "docno",
        "asin",
    ),
    "document": (
        *(
            "document",
            "documenttext",
            "doctext",
            "passage",
            "passagetext",
            "content",
            "text",
            "body",
            "doc",
            "contents",
        ),
        *("description", "answer", "positive"),
    ),
    "title": ("title", "doctitle", "documenttitle", "headline", "productname", "producttitle", "name"),
    "rank": ("rank", "firststagerank", "docposition", "position"),
    "score": ("score", "firststagescore", "similarity", "bm25"),
    "grade": ("grade", "rating", "relevance", "relevancegrade", "rel", "label", "judgement", "judgment", "esci"),
    "rater": ("rater", "raterid", "annotator", "annotatorid", "assessor", "assessorid", "worker", "workerid"),
}
# Spellings of a missing number.
_NUMBERS, _MISSING = ("rank", "score", "grade"), frozenset(("na", "n/a", "nan", "null", "none", "#n/a"))
# Columns of training texts: others beside the document `positive`, and lists of documents in one row.
_NEGATIVE = re.compile(r"negatives?\d*")
_LISTS = frozenset(
    ("pos", "neg", "positives", "negatives", "positivepassages", "negativepassages", "passages", "documents", "docs", "ctxs", "contexts",
     "candidates", "hits")
)  # fmt: skip
_BARE_IDS = ("id", "docid", "uid", "key")


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """The name of the column of each role; roles without a column are missing."""

    of: Mapping[str, str]

    def pair(self, row: Mapping[str, Any], line: int) -> Pair:
        """The pair of a row, whose missing and empty cells are None or blank. Raises RowError."""
        self._check_lists(row, line)
        query = self._text(row, "query", line)
        document = self._document(row, line)
        extra = {} if "query" in self.of and self._has_document else self._other(row)
        return Pair(
            query_id=self._id(row, "query_id", line),
            query=query,
            document_id=self._id(row, "document_id", line),
            document=document,
            rank=None if (found := self._cell(row, "rank")) is None else fields.rank(found, line),
            score=None if (found := self._cell(row, "score")) is None else fields.score(found, line),
            grade=None if (found := self._cell(row, "grade")) is None else fields.grade(found, line),
            metadata=self._title(row) | extra,
            rater=self._rater(row, line),
        )

    @property
    def has_negatives(self) -> bool:
        """Whether rows hold a relevant document, and others beside it."""
        return _plain(self.of.get("document", "")) == "positive"

    def negatives(self, row: Mapping[str, Any], pair: Pair, line: int) -> Iterator[Pair]:
        """The other documents of a row of training texts, which nobody has graded. Raises RowError."""
        for name, value in row.items() if self.has_negatives else ():
            if name not in self.of.values() and _NEGATIVE.fullmatch(_plain(name)):
                for each in value if isinstance(value, list) else [value]:
                    if each is not None and not (isinstance(each, str) and is_blank(each)):
                        yield Pair(query_id=pair.query_id, query=pair.query, document=fields.text(each, name, line))

    def _check_lists(self, row: Mapping[str, Any], line: int) -> None:
        """Raise RowError for documents in a list, where no column of documents is known."""
        if self._has_document or "document_id" in self.of:
            return
        for name, value in row.items():
            if isinstance(value, list | dict) and value and _plain(name) in _LISTS:
                raise RowError(
                    f"is {fields.named(value)}",
                    line=line,
                    field=name,
                    expectation="one document in a row",
                    remedy="write a row for each document, with the query in each of them",
                )

    @property
    def _has_document(self) -> bool:
        return bool({"document", "title"} & self.of.keys())

    def _cell(self, row: Mapping[str, Any], role: str) -> Any:
        value = row.get(self.of[role]) if role in self.of else None
        if isinstance(value, str) and (is_blank(value) or (role in _NUMBERS and value.strip().lower() in _MISSING)):
            return None
        return value

    def _id(self, row: Mapping[str, Any], role: str, line: int) -> str | None:
        """The id; a column of ids must have one in every row."""
        return fields.identifier(row.get(self.of[role]), self.of[role], line) if role in self.of else None

    def _rater(self, row: Mapping[str, Any], line: int) -> str | None:
        """The rater of the grade; a column of raters must name one for every grade."""
        if "rater" not in self.of or self._cell(row, "grade") is None:
            return None
        found = self._cell(row, "rater")
        name = str(found).strip() if isinstance(found, str | int) and not isinstance(found, bool) else ""
        if name and len(name) <= MAX_ID_CHARACTERS and name.isprintable():
            return name[:MAX_RATER_CHARACTERS]
        raise RowError(
            "is empty" if found is None else f"is {quoted(str(found))}",
            line=line,
            field=self.of["rater"],
            expectation="the rater's name next to each grade",
            remedy="name the rater, or choose no column for raters",
        )

    def _text(self, row: Mapping[str, Any], role: str, line: int) -> str | None:
        return fields.text(row.get(self.of[role]), self.of[role], line) if role in self.of else None

    def _document(self, row: Mapping[str, Any], line: int) -> str | None:
        """The title and the text, each where there is one."""
        if "title" not in self.of:
            return self._text(row, "document", line)
        parts = [each for role in ("title", "document") if isinstance(each := self._cell(row, role), str)]
        return fields.text("\n".join(parts), self.of.get("document", self.of["title"]), line)

    def _title(self, row: Mapping[str, Any]) -> dict[str, Any]:
        title = self._cell(row, "title")
        return {"title": title} if isinstance(title, str) else {}

    def _other(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Columns without a role, as metadata of texts that stand alone."""
        used = set(self.of.values())
        others = {name: value for name, value in row.items() if name not in used and _is_kept(value)}
        nested = others.pop("metadata", {})
        return others | (nested if isinstance(nested, dict) else {"metadata": nested})


def _is_kept(value: Any) -> bool:
    """Whether a value becomes metadata: not what is empty, nor a list of numbers, which is an embedding."""
    if isinstance(value, list):
        return bool(value) and not isinstance(value[0], int | float)
    return isinstance(value, int | float) or (isinstance(value, str | dict) and bool(value))


def mapping_of(columns: Sequence[str], given: Mapping[str, str]) -> ColumnMapping:
    """The mapping for these columns; `given` overrides the guess: a column's name, "-" for none, "" to guess.

    Raises RowError, which names the columns, for an unknown one and for a table without a query or document.
    """
    listed = ", ".join(repr(printable(each)) for each in list(columns)[:20]) or "none"
    for role, name in given.items():
        if name not in ("", NONE) and name not in columns:
            raise refused(
                f"has no column {quoted(name)} for {role}",
                expectation=f"one of its columns: {listed}",
                remedy="correct the column mapping",
            )
    found = {role: name for role, name in given.items() if name not in ("", NONE)}
    free = [each for each in columns if each not in found.values()]
    for role in ROLES:
        if not given.get(role) and (name := _likeliest(_NAMES[role], free)):
            found[role] = name
            free.remove(name)
    _give_bare_id(found, free, given)
    _score_or_grade(found, given)
    has_pair = bool({"query", "query_id"} & found.keys()) and "document_id" in found
    has_text = bool({"query", "document", "title"} & found.keys())
    if not has_text and not (has_pair and {"grade", "rank", "score"} & found.keys()):
        raise refused(
            f"has the columns {listed}, of which no text and no graded or ranked pair is known",
            expectation="a column of queries or documents, or ids of both with a grade, rank or score",
            remedy="name the columns in the column mapping",
        )
    return ColumnMapping(found)


def _plain(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _likeliest(names: Sequence[str], columns: Sequence[str]) -> str:
    by_name = {_plain(each): each for each in reversed(columns)}
    return next((by_name[each] for each in names if each in by_name), "")


def _give_bare_id(found: dict[str, str], free: Sequence[str], given: Mapping[str, str]) -> None:
    """A column `id` belongs to the document, or to the query where there are no documents."""
    role = "document_id" if {"document", "title"} & found.keys() else "query_id"
    if role not in found and not given.get(role) and (name := _likeliest(_BARE_IDS, free)):
        found[role] = name


def _score_or_grade(found: dict[str, str], given: Mapping[str, str]) -> None:
    """In a table of ids and `score` alone, as BEIR's qrels, the score is the grade."""
    is_qrels = {"query_id", "document_id", "score"} == found.keys()
    if is_qrels and not given.get("score") and not given.get("grade"):
        found["grade"] = found.pop("score")
