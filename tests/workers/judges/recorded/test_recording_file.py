"""Files of recorded judgments: what a line may hold, and what is said of bad ones."""

from __future__ import annotations

import gzip
import io

import pytest

from labeling.importing.lines import RowError
from labeling.records import AnswerKind
from workers.judges.recording_file import RecordedAnswer, read_answers

PAIR = '"query": "q", "a": "d1", "b": "d2"'


def read(text: str) -> list[RecordedAnswer]:
    return list(read_answers(io.BytesIO(text.encode())))


@pytest.mark.parametrize(
    ("answer", "preference", "kind"),
    [
        ('"preference": 0.9', 0.9, AnswerKind.PREFERENCE),
        ('"score": -0.5', 0.75, AnswerKind.PREFERENCE),
        ('"score": 1', 0.0, AnswerKind.PREFERENCE),
        ('"winner": "a"', 1.0, AnswerKind.PREFERENCE),
        ('"winner": "tie"', 0.5, AnswerKind.PREFERENCE),
        ('"winner": "both_irrelevant"', None, AnswerKind.BOTH_IRRELEVANT),
        ('"preference": null, "kind": "cannot_judge"', None, AnswerKind.CANNOT_JUDGE),
    ],
)
def test_an_answer_is_a_preference_a_score_or_a_winner(answer: str, preference: float | None, kind: AnswerKind) -> None:
    [found] = read(f"{{{PAIR}, {answer}}}")
    assert (found.first, found.second, found.kind, found.judge) == ("d1", "d2", kind, "recorded")
    assert found.preference == (None if preference is None else pytest.approx(preference))


def test_a_swapped_line_showed_b_first() -> None:
    [found] = read(f'{{{PAIR}, "preference": 0.9, "swapped": true, "a_hash": "aaaaaaaa", "b_hash": "bbbbbbbb"}}')
    assert (found.first, found.second, found.preference) == ("d2", "d1", pytest.approx(0.1))
    assert (found.first_hash, found.second_hash) == ("bbbbbbbb", "aaaaaaaa")


def test_csv_and_gzip_hold_the_same() -> None:
    lines = f'{{{PAIR}, "preference": 0.25, "judge": "x", "rationale": "a, b"}}\n'
    table = 'Query;a;b;preference;judge;rationale\nq;d1;d2;0.25;x;"a, b"\n'
    packed = list(read_answers(io.BytesIO(gzip.compress(lines.encode()))))
    [of_csv] = read(table)
    assert packed == read(lines)
    assert (of_csv.preference, of_csv.judge, of_csv.rationale, of_csv.line) == (0.25, "x", "a, b", 2)


def test_the_exported_judgments_of_a_project_can_be_read() -> None:
    line = '{"query_a": "q", "document_a": "d1", "query_b": "q", "document_b": "d2", "annotator": "x", "by_person": false, "swapped": true, "kind": "preference", "preference": 0.8, "rationale": ""}'
    [found] = read(line)
    assert (found.judge, found.first, found.preference) == ("x", "d2", pytest.approx(0.2))
    with pytest.raises(RowError, match=r"line 1, query_b: compares documents of two queries"):
        read(line.replace('"query_b": "q"', '"query_b": "other"'))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f'{{{PAIR}, "preference": 0.5}}\n\n{{{PAIR}}}', "line 3: has no answer; expected one of preference"),
        (f'{{{PAIR}, "preference": 0.5, "score": 0}}', "line 1: has preference and score"),
        (f'{{{PAIR}, "preference": 1.5}}', r"line 1, preference: is '1.5'; expected a number from 0 to 1"),
        (f'{{{PAIR}, "score": true}}', "line 1, score: is 'True'"),
        (f'{{{PAIR}, "winner": "d1"}}', "line 1, winner: is 'd1'; expected a, b, tie"),
        (
            '{"query": "q", "a": "b", "b": "a", "winner": "a"}',
            "line 1, winner: is 'a', the id of one .* field of the other one",
        ),
        (
            f'{{{PAIR}, "preference": 0.5, "kind": "both_irrelevant"}}',
            "line 1, kind: is 'both_irrelevant' beside the preference '0.5'",
        ),
        (
            f'{{{PAIR}, "winner": "tie", "kind": "cannot_judge"}}',
            "line 1, kind: is 'cannot_judge' beside the winner 'tie'",
        ),
        ('{"query": "q", "a": "d", "b": "d", "score": 0}', "line 1: a and b are both 'd'"),
        ('{"query": "q", "a": "d", "score": 0}', "line 1, b: is missing"),
        (f'{{{PAIR}, "score": 0, "a_hash": "XYZ"}}', "line 1, a_hash: is 'XYZ'"),
        (f'{{{PAIR}, "score": 0, "judge": " "}}', "line 1, judge: is not a name"),
        (f'{{{PAIR}, "score": 0}}\n{{{PAIR}, "score": 1}}', "line 2: judge 'recorded' answers the same pair.*line 1"),
        ("[1]", "line 1: the header"),
        ("{nothing", "line 1: not JSON"),
        ("query,a,b\nq,d1,d2", "line 1: the header 'query, a, b' lacks preference, score or winner"),
        ("query,a,b,score\nq,d1", "line 2: has 2 cells; expected 4"),
        ("query,a,b,score\nq,d1,d2,high", "line 2, score: is 'high'"),
    ],
)
def test_a_bad_line_is_named_with_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(RowError, match=said):
        read(text)
