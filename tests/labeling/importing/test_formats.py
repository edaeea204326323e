"""Importers: what good files give, and that every bad one is an error with line, field and remedy."""

from __future__ import annotations

import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labeling.importing.formats import LineOptions, RowChecks, RowError, TrecQrels, ZbenchJsonl
from labeling.importing.formats.value_checks import is_blank
from labeling.importing.strict_json import BadJson, parse
from labeling.records import ImportedDocument, ImportedGrade, ImportedQuery


def line(query_id: str = "q", documents: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    given = documents if documents is not None else [{"id": "d", "content": "text"}]
    return {"query": {"id": query_id, "query": "what"}, "documents": given, **more}


def encoded(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def read(data: bytes, **options: Any) -> list[Any]:
    return list(ZbenchJsonl(LineOptions(**options)).read(io.BytesIO(data)))


def error_of(data: bytes, **options: Any) -> RowError:
    with pytest.raises(RowError) as caught:
        read(data, **options)
    return caught.value


# --- good files --------------------------------------------------------------------------


def test_reads_queries_and_documents_in_the_files_order() -> None:
    documents: list[dict[str, Any]] = [
        {"id": "d2", "content": "two", "metadata": {"year": 1999}, "rank": 1, "score": 3},
        {"id": "d1", "content": "Ünï \U0001f41f"},
    ]
    rows = read(encoded(line("q1", documents), line("q2", [])))
    assert rows[0] == ImportedQuery(
        id="q1",
        text="what",
        documents=(
            ImportedDocument("d2", "two", {"year": 1999}, rank=1, score=3.0),
            ImportedDocument("d1", "Ünï \U0001f41f"),
        ),
        line=1,
    )
    assert rows[1] == ImportedQuery(id="q2", text="what", documents=(), line=2)


def test_the_score_of_an_export_is_not_taken_for_the_first_stages() -> None:
    (row,) = read(encoded(line(documents=[{"id": "d", "content": "text", "score": 1.5, "elo": 1760.0}])))
    assert row.documents[0].score is None


def test_byte_order_mark_crlf_blank_lines_and_a_missing_last_newline_are_accepted() -> None:
    data = b"\xef\xbb\xbf" + encoded(line("q1")).replace(b"\n", b"\r\n") + b"\r\n   \n" + encoded(line("q2")).rstrip()
    assert [(row.id, row.line) for row in read(data)] == [("q1", 1), ("q2", 4)]


def test_compressed_files_are_known_by_their_first_bytes() -> None:
    data = encoded(line("q1"), line("q2"))
    assert read(gzip.compress(data)) == read(data)


def test_rows_come_before_the_rest_of_the_file_is_read() -> None:
    rows = ZbenchJsonl().read(Unfinished(encoded(line("q1"))))  # type: ignore[arg-type]
    assert next(rows).line == 1


class Unfinished:
    """A stream in which nothing may be read after the first 2 MB, and never all at once."""

    def __init__(self, head: bytes) -> None:
        self._stream = io.BytesIO(head + b"\n" * (4 * 1024 * 1024))

    def read(self, size: int) -> bytes:
        assert size > 0
        assert self._stream.tell() < 2 * 1024 * 1024
        return self._stream.read(size)


def test_an_empty_file_gives_no_rows() -> None:
    assert read(b"") == []


@given(st.text(), st.dictionaries(st.text(), st.one_of(st.text(), st.integers(), st.floats(), st.none())))
def test_what_is_accepted_can_be_stored_as_utf8_json_without_nan_or_nul(text: str, metadata: dict[str, Any]) -> None:
    try:
        (row,) = read(encoded(line(documents=[{"id": "d", "content": text, "metadata": metadata}])))
    except RowError:
        return
    kept = [row.documents[0].text, row.documents[0].metadata]
    json.dumps(kept, allow_nan=False, ensure_ascii=False).encode("utf-8")
    assert not any("\x00" in string for string in strings_in(kept))


def strings_in(value: Any) -> Iterator[str]:
    """Every string of a JSON value, keys too, as it is after decoding: six characters that spell an escape are text."""
    if isinstance(value, str):
        yield value
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from strings_in(inner)
    if isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def test_six_characters_that_spell_an_escape_are_text() -> None:
    (row,) = read(encoded(line(documents=[{"id": "d", "content": "\\u0000", "metadata": {"\\u0000": "\\u0000"}}])))
    assert row.documents[0].text == "\\u0000"


def test_harmless_forms_are_read() -> None:
    documents: list[dict[str, Any]] = [{"id": 7, "content": "text", "metadata": None, "rank": 1.0, "score": None}]
    data = json.dumps({"query": {"id": 12, "query": "what", "metadata": None}, "documents": documents}).encode()
    assert read(data) == [ImportedQuery("12", "what", (ImportedDocument("7", "text", rank=1),), line=1)]


@given(
    ends=st.lists(st.sampled_from([b"\n", b"\r\n", b"\r"]), min_size=3, max_size=3),
    starts=st.lists(st.sampled_from([b"", b"\xef\xbb\xbf", b"\x1a\xef\xbb\xbf"]), min_size=3, max_size=3),
    last=st.sampled_from([b"", b"\x1a", b"\x1a\x1a", b"\x1a\r\n"]),
)
def test_line_ends_byte_order_marks_and_ctrl_z_in_any_mixture_change_nothing(
    ends: list[bytes], starts: list[bytes], last: bytes
) -> None:
    rows = [json.dumps(line(f"q{number}")).encode() for number in range(3)]
    data = b"".join(start + row + end for start, row, end in zip(starts, rows, ends, strict=True))
    assert [(row.id, row.line) for row in read(data + last)] == [("q0", 1), ("q1", 2), ("q2", 3)]


def test_a_line_end_across_two_pieces_of_the_file_is_one() -> None:
    filler = b" " * (1024 * 1024 - 1)
    assert [row.line for row in read(filler + b"\r\n" + encoded(line("q1")))] == [2]


@given(
    st.text(
        alphabet=st.characters(
            categories=("Cc", "Cf", "Zs", "Zl", "Zp"),
            exclude_characters="\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd\U000110cd",
        )
    )
)
def test_texts_of_blanks_and_zero_width_characters_are_empty_and_one_letter_is_enough(text: str) -> None:
    assert is_blank(text)
    assert not is_blank(text + "a" + text)


def test_with_parts_the_good_documents_of_a_bad_line_are_kept() -> None:
    documents = [{"id": name, "content": text} for name, text in (("a", "A"), ("b", ""), ("c", "\x00"), ("d", "D"))]
    found = list(ZbenchJsonl().read_all(io.BytesIO(encoded(line("q", documents))), parts=True))
    assert [getattr(each, "field", "row") for each in found] == ["documents[1].content", "documents[2].content", "row"]
    assert [document.id for document in found[-1].documents] == ["a", "d"]  # type: ignore[union-attr]


# --- bad lines ---------------------------------------------------------------------------

GOOD = b'{"query": {"id": "q", "query": "w"}, "documents": [{"id": "d", "content": "t"}]}\n'


def documents_with(**fields: Any) -> bytes:
    return encoded(line(documents=[{"id": "a", "content": "good"}, {"id": "d", "content": "text", **fields}]))


@pytest.mark.parametrize(
    ("data", "field", "words"),
    [
        (b'{"query": \n', "", "not JSON"),
        (b"[1, 2]\n", "", "is a list"),
        (b'"text"\n', "", "is a string"),
        (b"null\n", "", "is null"),
        (GOOD.rstrip() + b" {}\n", "", "not JSON"),
        (b"{}\n", "query", "is missing"),
        (b'{"query": "q", "documents": []}\n', "query", "is a string"),
        (b'{"query": {"query": "w"}, "documents": []}\n', "query.id", "is missing"),
        (b'{"query": {"id": 7.5, "query": "w"}, "documents": []}\n', "query.id", "is a number"),
        (documents_with(id=" a"), "documents[1].id", "blank at its beginning or end"),
        (documents_with(id="a\u00a0"), "documents[1].id", "blank at its beginning or end"),
        (documents_with(id="a\nb"), "documents[1].id", "control character U+000A at position 2"),
        (documents_with(id="a\u2028b"), "documents[1].id", "control character U+2028"),
        (documents_with(id="\u200b"), "documents[1].id", "is empty"),
        (documents_with(content="\u200b\ufeff \u2800"), "documents[1].content", "is empty"),
        (b'{"query": {"id": "q", "query": " \\t"}, "documents": []}\n', "query.query", "is empty"),
        (b'{"query": {"id": "q", "query": "w"}}\n', "documents", "is missing"),
        (b'{"query": {"id": "q", "query": "w"}, "documents": {}}\n', "documents", "is an object"),
        (encoded(line(documents=["d"])), "documents[0]", "is a string"),  # type: ignore[list-item]
        (documents_with(content=""), "documents[1].content", "is empty"),
        (documents_with(content="\n "), "documents[1].content", "is empty"),
        (documents_with(content=None), "documents[1].content", "is null"),
        (documents_with(content=["t"]), "documents[1].content", "is a list"),
        (documents_with(content="a\x00b"), "documents[1].content", "NUL character at position 2"),
        (documents_with(content="ab\ud83d"), "documents[1].content", "lone surrogate \\ud83d at position 3"),
        (documents_with(id=""), "documents[1].id", "is empty"),
        (documents_with(id=True), "documents[1].id", "is true or false"),
        (documents_with(id="x" * 501), "documents[1].id", "has 501 characters"),
        (documents_with(id="a"), "documents[1].id", "already used by documents[0]"),
        (documents_with(metadata=[]), "documents[1].metadata", "is a list"),
        (documents_with(metadata={"p": float("nan")}), "documents[1].metadata.p", "is nan"),
        (documents_with(metadata={"p": [1, float("-inf")]}), "documents[1].metadata.p[1]", "is -inf"),
        (documents_with(metadata={"n": 2**63}), "documents[1].metadata.n", "beyond 64 bits"),
        (documents_with(metadata={"n": -(2**63) - 1}), "documents[1].metadata.n", "beyond 64 bits"),
        (documents_with(metadata={"n": 1}).replace(b"1}", b"1" * 5000 + b"}"), "documents[1].metadata.n", "64 bits"),
        (documents_with(metadata={"x": 1}).replace(b"1}", b"1e999}"), "documents[1].metadata.x", "is inf"),
        (documents_with(metadata={"s": ["\x00"]}), "documents[1].metadata.s[0]", "NUL"),
        (documents_with(metadata={"a\x00": 1}), "documents[1].metadata.a\\x00", "NUL"),
        (documents_with(metadata={"a\udc00": 1}), "documents[1].metadata.a\\udc00", "lone surrogate"),
        (documents_with(rank=0), "documents[1].rank", "is 0"),
        (documents_with(rank=2**31), "documents[1].rank", "is 2147483648"),
        (documents_with(rank=1.5), "documents[1].rank", "is 1.5"),
        (documents_with(rank=True), "documents[1].rank", "is true or false"),
        (documents_with(score="3"), "documents[1].score", "is a string"),
        (documents_with(score=float("inf")), "documents[1].score", "is inf"),
        (documents_with(other=float("nan")), "documents[1].other", "is nan"),
        (b'{"query": {"id": "q", "id": "r", "query": "w"}, "documents": []}\n', "id", "occurs twice"),
        (GOOD.replace(b'"t"', b'"caf\xe9"'), "", "0xe9) is not UTF-8"),
        (GOOD.replace(b'"t"', b'"\xed\xa0\xbd"'), "", "is not UTF-8"),
        (GOOD.replace(b'"t"', b'"a\x00b"'), "", "not JSON"),
        (encoded(line(extra=[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]])), "", "32 levels deep"),
        (b"[" * 200_000 + b"]" * 200_000 + b"\n", "", "32 levels deep"),
        (b'{"a":' * 200_000 + b"\n", "", "32 levels deep"),
    ],
)
def test_a_bad_line_is_named_with_field_and_remedy(data: bytes, field: str, words: str) -> None:
    error = error_of(b"\n" + data)
    assert (error.line, error.field) == (2, field)
    assert words in error.problem
    assert error.expectation
    assert error.remedy
    assert error.remedy in str(error)
    assert "line 2" in str(error)
    str(error).encode("utf-8")


def test_an_over_long_line_is_an_error_and_the_exact_limit_is_not() -> None:
    body = GOOD.rstrip()
    assert read(body + b"\r\n", max_line_bytes=len(body))
    for ending in (b"", b"\n", b"\r\n"):
        error = error_of(GOOD + body + ending, max_line_bytes=len(body) - 1)
        assert error.line == 1
        assert f"longer than {len(body) - 1} bytes" in error.problem
        assert "ZELO_MAX_LINE_MB" in error.remedy


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_file_beyond_the_limit_of_the_whole_is_an_error_and_the_exact_limit_is_not(
    pack: Callable[[bytes], bytes],
) -> None:
    lines = b"".join(GOOD.replace(b'"q"', b'"q%d"' % number) for number in range(5))
    assert len(read(pack(lines), max_total_bytes=len(lines))) == 5
    error = error_of(pack(lines), max_total_bytes=len(lines) - 1)
    assert error.line == 5 and f"longer than {len(lines) - 1} bytes" in error.problem
    assert "ZELO_MAX_IMPORT_MB" in error.remedy


def test_a_small_file_that_unpacks_without_end_is_broken_off_even_within_one_line() -> None:
    bomb = gzip.compress(b"x" * 30_000_000)
    rows = list(ZbenchJsonl(LineOptions(max_line_bytes=1000, max_total_bytes=2_000_000)).read_all(io.BytesIO(bomb)))
    assert len(rows) == 1 and isinstance(rows[0], RowError) and "ZELO_MAX_IMPORT_MB" in rows[0].remedy


def test_an_over_long_line_is_not_read_into_memory() -> None:
    stream = Bomb()
    with pytest.raises(RowError, match="longer than 1000 bytes"):
        next(ZbenchJsonl(LineOptions(max_line_bytes=1000)).read(stream))  # type: ignore[arg-type]
    assert stream.largest <= 2 * 1024 * 1024


class Bomb:
    """64 MB without a line end, which remembers the most that was asked for at once."""

    def __init__(self) -> None:
        self.left = 64 * 1024 * 1024
        self.largest = 0

    def read(self, size: int = -1) -> bytes:
        assert size > 0
        self.largest = max(self.largest, size)
        size = min(size, self.left)
        self.left -= size
        return b"x" * size


def test_a_compressed_bomb_stops_at_the_line_limit() -> None:
    packer = zlib.compressobj(wbits=31)
    bomb = b"".join(packer.compress(b" " * 1024 * 1024) for _ in range(64)) + packer.flush()
    assert len(bomb) < 100_000
    assert "longer than 1000000 bytes" in error_of(bomb, max_line_bytes=1_000_000).problem


@pytest.mark.parametrize("damage", ["cut", "flipped", "only magic"])
def test_a_damaged_compressed_file_is_a_row_error(damage: str) -> None:
    packed = gzip.compress(encoded(*(line(f"q{number}") for number in range(200))))
    data = {
        "cut": packed[: len(packed) // 2],
        "flipped": packed[:40] + bytes([packed[40] ^ 0xFF]) + packed[41:],
        "only magic": b"\x1f\x8b",
    }[damage]
    assert error_of(data).remedy


def test_after_a_bad_line_a_preview_goes_on_with_the_next() -> None:
    data = GOOD + b"{\n" + b"x" * 5000 + b"\n" + encoded(line("last"))
    rows = list(ZbenchJsonl(LineOptions(max_line_bytes=1000)).read_all(io.BytesIO(data)))
    assert [getattr(row, "line", None) for row in rows] == [1, 2, 3, 4]
    assert [isinstance(row, RowError) for row in rows] == [False, True, True, False]


def test_brackets_and_escaped_quotes_inside_texts_do_not_count_as_nesting() -> None:
    text = '[[{"' * 1000 + "\\"
    (row,) = read(encoded(line(documents=[{"id": "d", "content": text}])))
    assert row.documents[0].text == text


@pytest.mark.parametrize("hostile", [b'"' + b'\\"' * 500_000, b'"' * 500_001, b'"\\', b'["\\"' * 30])
def test_unclosed_strings_are_refused_in_linear_time(hostile: bytes) -> None:
    """A scan that starts over at each escaped quote would not come back for many minutes."""
    with pytest.raises(BadJson):
        parse(hostile)


# --- qrels -------------------------------------------------------------------------------


def grades(data: bytes) -> list[Any]:
    return list(TrecQrels().read(io.BytesIO(data)))


@pytest.mark.parametrize(
    "data",
    [
        b"query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\n",
        b"query_id iteration doc_id relevance\nq1 0 d1 2\nq1 0 d2 0\n",
        b"q1 d1 2\nq1 d2 0\n",
        b"q1 0 d1 2.0\nq1 0 d2 0.\n",
        b"q1 0 d1 2e0\nq1 0 d2 0.000e+00\n",
        b'"query-id"\t"corpus-id"\t"score"\n"q1"\t"d1"\t"2"\n"q1"\t"d2"\t"0"\n',
        b'"q1" "0" "d1" "2"\n"q1" 0 "d2" 0\n',
        b"# judged in May, 2 people\nq1 0 d1 2\n#\nq1 0 d2 0 # spam\n",
        b"#q1 0 d1 2\n",
        b"\xef\xbb\xbfq1 0 d1 2\r\xef\xbb\xbfq1 0 d2 0\r\x1a",
        b"q1\t\t0\td1\t2\nq1\t\td2\t0\n",
    ],
)
def test_dialects_of_qrels_are_read(data: bytes) -> None:
    expected = [("q1", "d1", 2), ("q1", "d2", 0)]
    if data.startswith(b"#q1"):
        expected = [("#q1", "d1", 2)]
    assert [(row.query_id, row.document_id, row.grade) for row in grades(data)] == expected


@pytest.mark.parametrize("row", [b"q1 0 #d1 2", b"q1 #d1 2", b"q1 0 #d1 2 # seen", b"q1\t0\t#d1\t2"])
def test_a_document_id_that_begins_with_a_hash_is_no_comment(row: bytes) -> None:
    (found,) = grades(row)
    assert (found.query_id, found.document_id, found.grade) == ("q1", "#d1", 2)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=2, max_size=2))
def test_ids_between_tabs_come_back_whole_or_are_refused(ids: list[str]) -> None:
    """Blanks of any kind stay inside ids; nothing is cut in silence."""
    try:
        found = grades(b"\t".join(each.encode("utf-8", "replace") for each in (ids[0], "0", ids[1], "1")))
    except RowError:
        return
    if found and not ({"#", '"', "\ufeff", "\x1a", "\t"} & set("".join(ids))):
        assert [found[0].query_id, found[0].document_id] == [each.strip(" \n\r\v\f") for each in ids]


def test_blanks_inside_ids_stay_where_tabs_separate_and_no_break_spaces_always() -> None:
    assert grades("q 1\t0\td\u00a01\t1\n".encode()) == [ImportedGrade("q 1", "d\u00a01", 1, line=1)]
    assert grades("q1 0 d\u00a01 1\n".encode()) == [ImportedGrade("q1", "d\u00a01", 1, line=1)]


def test_negative_grades_and_grades_of_subtopics_follow_the_options() -> None:
    data = b"q 1 d 0\nq 2 d 2\nq 3 d 1\nq 1 e -1\n"
    importer = TrecQrels.from_dict({"negative": "ungraded", "repeated": "maximum"})
    assert list(importer.read(io.BytesIO(data))) == [ImportedGrade("q", "d", 2, line=2)]  # type: ignore[attr-defined]


def test_qrels_columns_may_be_apart_by_blanks_or_tabs_and_negative_grades_count_as_zero() -> None:
    assert grades(b"q1 0 d1 3\r\n\nq1\tQ0\td2\t-2\n") == [
        ImportedGrade("q1", "d1", 3, line=1),
        ImportedGrade("q1", "d2", 0, line=3),
    ]


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (b"q1 0 7", "", "has 3 columns, where the lines before have 4"),
        (b"q1 d1", "", "has 2 columns"),
        (b"q1 Q0 d1 1 12.5 tag", "", "has 6 columns"),
        (b"q1 0 d1 0.25", "grade", "'0.25', a fraction"),
        (b"q1 0 d1 nan", "grade", "'nan'"),
        (b"q1\t0 d1\t1", "", "by tabs and by blanks"),
        (b"q1\t0\ta\x1cb\t1", "document id", "control character U+001C"),
        (b"q1 0 d1 yes", "grade", "'yes'"),
        (b"q1 0 d1 99999", "grade", "'99999'"),
        (b"q1 0 d1 " + b"9" * 5000, "grade", "'999"),
        (b"q1 0 " + b"d" * 501 + b" 1", "document id", "501 characters"),
        (b"q\x001 0 d1 1", "query id", "NUL"),
        (b"q1 0 d\xff 1", "", "not UTF-8"),
    ],
)
def test_a_bad_grade_is_named(row: bytes, field: str, words: str) -> None:
    with pytest.raises(RowError) as caught:
        grades(b"q0 0 d0 1\n" + row + b"\n")
    assert (caught.value.line, caught.value.field) == (2, field)
    assert words in caught.value.problem


# --- across lines ------------------------------------------------------------------------


def check_all(*rows: ImportedQuery | ImportedGrade) -> list[list[bool]]:
    checks = RowChecks()
    return [checks.check(row) for row in rows]


def query(line_number: int, identifier: str, *documents: tuple[str, str]) -> ImportedQuery:
    return ImportedQuery(identifier, "what", tuple(ImportedDocument(*d) for d in documents), line=line_number)


def test_a_document_of_several_queries_is_known_the_second_time() -> None:
    assert check_all(query(1, "a", ("d", "one"), ("e", "two")), query(2, "b", ("e", "two"), ("f", "three"))) == [
        [False, False],
        [True, False],
    ]


def test_one_document_id_with_two_texts_names_both_lines() -> None:
    with pytest.raises(RowError, match=r"line 5, documents\[1\].content: .*differs from its text on line 2"):
        check_all(query(2, "a", ("d", "one")), query(5, "b", ("x", "y"), ("d", "other")))


def test_one_query_id_on_two_lines_names_both() -> None:
    with pytest.raises(RowError, match=r"line 3, query.id: .*'a' is already used on line 1"):
        check_all(query(1, "a"), query(3, "a"))


def test_rows_of_an_importer_without_line_numbers_are_checked_too() -> None:
    with pytest.raises(RowError, match="query id"):
        check_all(query(0, "a"), query(0, "a"))


def test_a_repeated_grade_is_known_and_a_contradicting_one_is_an_error() -> None:
    assert check_all(ImportedGrade("q", "d", 2, 1), ImportedGrade("q", "d", 2, 2)) == [[False], [True]]
    with pytest.raises(RowError, match="line 7 as 2") as caught:
        check_all(ImportedGrade("q", "d", 2, 7), ImportedGrade("q", "d", 1, 9))
    assert caught.value.line == 9
