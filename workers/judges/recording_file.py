"""Reads files of recorded judgments, JSON lines or CSV, and checks each line. Imports no Django.

A line names a query and two documents by the ids that were imported, a judge, and its answer as a preference, a score or a
winner. `workers.judges.recorded` replays what this module reads; `workers.jobs.recorded_judges` stores it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from labeling.importing.formats.value_checks import check_identifier
from labeling.importing.lines import RowError, numbered_lines
from labeling.importing.strict_json import BadJson, check_text, parse, quoted
from labeling.records import AnswerKind

MOST_LINE_BYTES = 1 << 20
MOST_BYTES = 256 << 20
MOST_ANSWERS = 2_000_000
LONGEST_JUDGE, LONGEST_RATIONALE = 200, 10_000
DEFAULT_JUDGE = "recorded"
EXAMPLE = '{"query": "q1", "a": "d1", "b": "d2", "preference": 0.9, "judge": "strict"}'
ANSWERS = ("preference", "score", "winner")
_WINNERS = {"a": 1.0, "b": 0.0, "tie": 0.5}
_HASH = re.compile(r"[0-9a-f]{8,64}")


@dataclass(frozen=True, slots=True)
class RecordedAnswer:
    """One answer about `first` and `second`, the imported ids of two documents in the order in which they were shown.

    `preference`: P(first is the more relevant), None unless `kind` is PREFERENCE. The hashes are the first digits of the
    SHA-256 of the texts that the judge read, empty if the file does not say. `line` is 1-based.
    """

    query: str
    first: str
    second: str
    judge: str
    preference: float | None
    kind: AnswerKind
    rationale: str
    query_hash: str
    first_hash: str
    second_hash: str
    line: int


def read_answers(stream: IO[bytes]) -> Iterator[RecordedAnswer]:
    """Yield the answers of a file, plain or gzipped, in its order. Raises RowError at the first bad line.

    A file whose first character is "{" holds JSON lines, any other is CSV with a header (commas, semicolons or tabs).
    """
    seen: dict[tuple[str, str, str, str], int] = {}
    for line, values in _rows(stream):
        try:
            answer = _answer(values, line)
        except BadJson as error:
            raise _row_error(line, error) from None
        key = (answer.judge, answer.query, answer.first, answer.second)
        if before := seen.setdefault(key, line) - line:
            raise RowError(
                f"judge {quoted(answer.judge)} answers the same pair in the same order as in line {line + before}",
                line=line,
                expectation="one answer of a judge to a pair in an order",
                remedy="keep one of the two lines, or give the second judge another name",
            )
        if len(seen) > MOST_ANSWERS:
            raise RowError(
                f"the file has more than {MOST_ANSWERS:,} answers",
                line=line,
                expectation=f"at most {MOST_ANSWERS:,} answers a file",
                remedy="split the file by judge, and upload the parts",
                ends_file=True,
            )
        yield answer


def _row_error(line: int, error: BadJson) -> RowError:
    return RowError(error.problem, line=line, field=error.field, expectation=error.expectation, remedy=error.remedy)


# --- lines -------------------------------------------------------------------------------


def _rows(stream: IO[bytes]) -> Iterator[tuple[int, Mapping[str, Any]]]:
    header: list[str] = []
    delimiter, is_csv = ",", False
    for line, body in numbered_lines(stream, MOST_LINE_BYTES, MOST_BYTES):
        if isinstance(body, RowError):
            raise body
        if not header and not is_csv and not body.lstrip().startswith(b"{"):
            is_csv = True
            text = _decoded(body, line)
            delimiter = max(",;\t", key=text.count)
            header = _header(next(csv.reader([text], delimiter=delimiter)), line)
            continue
        yield line, _cells(body, line, header, delimiter) if is_csv else _object(body, line)


def _object(body: bytes, line: int) -> Mapping[str, Any]:
    try:
        value = parse(body)
    except BadJson as error:
        raise _row_error(line, error) from None
    if not isinstance(value, dict):
        raise RowError(
            "is not a JSON object", line=line, expectation=f"an object such as {EXAMPLE}", remedy="correct the line"
        )
    return value


def _decoded(body: bytes, line: int) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        raise RowError(
            "is not UTF-8", line=line, expectation="UTF-8 text", remedy="save or convert the file as UTF-8"
        ) from None


def _header(names: list[str], line: int) -> list[str]:
    found = [name.strip().lower() for name in names]
    missing = [name for name in ("query", "a", "b") if name not in found]
    if missing or not set(found) & set(ANSWERS):
        wanted = ", ".join(missing) or "preference, score or winner"
        raise RowError(
            f"the header {quoted(', '.join(found))} lacks {wanted}",
            line=line,
            expectation="JSON lines, or CSV whose header names query, a, b and one of preference, score, winner",
            remedy="add a header line with these names",
        )
    if len(set(found)) < len(found):
        raise RowError("the header names a column twice", line=line, expectation="each name once", remedy="rename one")
    return found


def _cells(body: bytes, line: int, header: list[str], delimiter: str) -> Mapping[str, Any]:
    text = _decoded(body, line)
    try:
        cells = next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise RowError(
            f"cannot be split into cells ({error})",
            line=line,
            expectation="CSV with one answer a line, quotes doubled inside quotes",
            remedy="write the file with a CSV library, without line ends inside a cell",
        ) from None
    if len(cells) != len(header):
        raise RowError(
            f"has {len(cells)} cells",
            line=line,
            expectation=f"{len(header)} cells, as the header",
            remedy="quote cells that contain the separator",
        )
    return {name: _cell_value(name, cell.strip()) for name, cell in zip(header, cells, strict=True) if cell.strip()}


def _cell_value(name: str, cell: str) -> Any:
    """The cell's number where the column holds numbers or yes/no, otherwise its text."""
    if name == "swapped":
        return {"true": True, "1": True, "false": False, "0": False}.get(cell.lower(), cell)
    if name not in ("preference", "score"):
        return cell
    try:
        return float(cell)
    except ValueError:
        return cell


# --- values ------------------------------------------------------------------------------


def _answer(values: Mapping[str, Any], line: int) -> RecordedAnswer:
    """The answer of a line. Raises BadJson that names the field."""
    if "query" not in values and "query_a" in values:
        values = _of_export(values)
    query, a, b = (_identifier(values, name) for name in ("query", "a", "b"))
    if a == b:
        raise BadJson(f"a and b are both {quoted(a)}", expectation="two documents", remedy="correct the line")
    preference, kind = _preference(values)
    swapped = values.get("swapped", False)
    if not isinstance(swapped, bool):
        raise BadJson(
            "is not true or false", field="swapped", expectation="true if b was shown first", remedy="correct it"
        )
    hashes = {name: _hash(values, f"{name}_hash") for name in ("query", "a", "b")}
    if swapped:
        a, b, preference = b, a, None if preference is None else 1.0 - preference
    return RecordedAnswer(
        query=query,
        first=a,
        second=b,
        judge=_judge(values),
        preference=preference,
        kind=kind,
        rationale=_text(values, "rationale", LONGEST_RATIONALE),
        query_hash=hashes["query"],
        first_hash=hashes["b" if swapped else "a"],
        second_hash=hashes["a" if swapped else "b"],
        line=line,
    )


def _of_export(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A line of the project's own export of judgments under the names of this format."""
    if values.get("query_a") != values.get("query_b"):
        raise BadJson(
            "compares documents of two queries",
            field="query_b",
            expectation="a pair of one query",
            remedy="leave out the lines across queries",
        )
    return {**values, "query": values["query_a"], "a": values.get("document_a"), "b": values.get("document_b")}


def _identifier(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise BadJson(
            "is missing" if value is None else "is not an id",
            field=name,
            expectation=f"an id as it was imported, as in {EXAMPLE}",
            remedy="add it",
        )
    check_identifier(value, name)
    return value


def _preference(values: Mapping[str, Any]) -> tuple[float | None, AnswerKind]:
    """P(a is the more relevant) and the kind of the answer."""
    given = [name for name in ANSWERS if values.get(name) is not None]
    kind = values.get("kind")
    if not given and kind in (AnswerKind.BOTH_IRRELEVANT.value, AnswerKind.CANNOT_JUDGE.value):
        return None, AnswerKind(kind)
    if len(given) != 1:
        raise BadJson(
            f"has {' and '.join(given)}" if given else "has no answer",
            expectation="one of preference (P(a is better), 0 to 1), score (-1: a, 1: b) and winner (a, b, tie)",
            remedy="keep one of them" if given else "add the answer, or leave the line out: a failure is not an answer",
        )
    name = given[0]
    value = values[name]
    found = _of_winner(value, values) if name == "winner" else (_of_number(name, value), AnswerKind.PREFERENCE)
    if isinstance(kind, str) and kind in set(AnswerKind) and kind != found[1]:
        raise BadJson(
            f"is {kind!r} beside the {name} {quoted(str(value))}",
            field="kind",
            expectation="one answer",
            remedy=f"leave the {name} out where the answer is {kind!r}",
        )
    return found


def _of_number(name: str, value: Any) -> float:
    low, high = (0.0, 1.0) if name == "preference" else (-1.0, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise BadJson(
            f"is {quoted(str(value))}",
            field=name,
            expectation=f"a number from {low:g} to {high:g}",
            remedy="convert it: preference is P(a is better); score is negative where a is better",
        )
    return float(value) if name == "preference" else (1.0 - value) / 2.0


def _of_winner(value: Any, values: Mapping[str, Any]) -> tuple[float | None, AnswerKind]:
    known = value.lower() if isinstance(value, str) else ""
    if known in ("a", "b") and value == values.get("b" if known == "a" else "a"):
        raise BadJson(
            f"is {quoted(value)}, the id of one of the two documents and the field of the other one",
            field="winner",
            expectation="an answer that names one document",
            remedy="write the answers as preferences: 1 where the document in field a is better, 0 where b is",
        )
    if known in (AnswerKind.BOTH_IRRELEVANT.value, AnswerKind.CANNOT_JUDGE.value):
        return None, AnswerKind(known)
    if known not in _WINNERS:
        raise BadJson(
            f"is {quoted(str(value))}",
            field="winner",
            expectation="a, b, tie, both_irrelevant or cannot_judge",
            remedy="write a where the document in field a is better",
        )
    return _WINNERS[known], AnswerKind.PREFERENCE


def _judge(values: Mapping[str, Any]) -> str:
    name = "judge" if values.get("judge") is not None else "annotator"
    value = values.get(name, DEFAULT_JUDGE)
    if not isinstance(value, str) or not value.strip() or len(value) > LONGEST_JUDGE:
        raise BadJson(
            "is not a name", field=name, expectation=f"a name of 1 to {LONGEST_JUDGE} characters", remedy="correct it"
        )
    return value.strip()


def _text(values: Mapping[str, Any], name: str, most: int) -> str:
    value = values.get(name) or ""
    if not isinstance(value, str) or len(value) > most:
        raise BadJson(
            "is not a text of that length", field=name, expectation=f"at most {most:,} characters", remedy="shorten it"
        )
    check_text(value)
    return value


def _hash(values: Mapping[str, Any], name: str) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise BadJson(
            f"is {quoted(str(value))}",
            field=name,
            expectation="the first 8 to 64 hex digits of the SHA-256 of the text in UTF-8, in lower case",
            remedy="correct it, or leave it out to accept any text",
        )
    return value
