"""The judge that replays a file: known and mirrored orders, changed texts, pairs that nobody recorded."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import pydantic
import pytest

from labeling.plugin_checks import assert_plugin
from labeling.records import Comparison, Failure, FailureKind, TextRecord, Verdict
from workers.judges import recorded
from workers.judges.recorded import JudgeNotRecorded, RecordedJudge, RecordingMissing, text_hash

CHECKSUM = "c" * 64
TEXTS = {"d1": TextRecord(11, "one"), "d2": TextRecord(12, "two"), "d3": TextRecord(13, "three")}
QUERY = TextRecord(1, "which")
ROWS: list[dict[str, Any]] = [
    {"query": "q", "a": "d1", "b": "d2", "preference": 0.9, "judge": "x", "rationale": "shorter"},
    {"query": "q", "a": "d1", "b": "d3", "preference": 0.7, "judge": "y"},
]


class Named:
    """The texts above by their names."""

    def documents(self) -> Iterator[TextRecord]:
        return iter(TEXTS.values())

    def candidates(self, query_id: int) -> Sequence[TextRecord]:
        return list(TEXTS.values())

    def query(self, query_id: int) -> TextRecord:
        return QUERY

    def named_documents(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        return {name: TEXTS[name] for name in names if name in TEXTS}

    def named_queries(self, names: Sequence[str]) -> Mapping[str, TextRecord]:
        return {"q": QUERY} if "q" in names else {}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The rows of the only stored file, to be changed by a test."""
    stored = [dict(row) for row in ROWS]

    @contextmanager
    def opened(checksum: str) -> Iterator[IO[bytes]]:
        if checksum != CHECKSUM:
            raise RecordingMissing("there is no such file")
        yield io.BytesIO("\n".join(map(json.dumps, stored)).encode())

    monkeypatch.setattr(recorded, "_opened", opened)
    return stored


def prepared(**options: Any) -> RecordedJudge:
    recorded._by_judge.cache_clear()  # tests change the content under one checksum
    judge = RecordedJudge.from_dict({"recording": CHECKSUM, "judge": "x", **options})
    assert isinstance(judge, RecordedJudge)
    judge.prepare(Named())
    return judge


def ask(judge: RecordedJudge, a: str, b: str, *, swapped: bool = False) -> Verdict | Failure:
    [answer] = judge.judge([Comparison(0, QUERY, QUERY, TEXTS[a], TEXTS[b], swapped=swapped)])
    return answer


def test_a_pair_gets_its_answer_in_the_order_in_which_it_was_recorded(rows: list[dict[str, Any]]) -> None:
    judge = prepared()
    assert ask(judge, "d1", "d2") == Verdict(0.9, rationale="shorter")
    turned = ask(judge, "d2", "d1", swapped=True)
    assert isinstance(turned, Verdict) and turned.preference == pytest.approx(0.1) and turned.rationale == "shorter"
    assert judge.recorded_pairs(1) == [(11, 12)] and judge.recorded_pairs(2) == []


def test_the_other_order_is_mirrored_or_refused_as_the_option_says(rows: list[dict[str, Any]]) -> None:
    mirrored = ask(prepared(), "d2", "d1")
    assert isinstance(mirrored, Verdict) and mirrored.preference == pytest.approx(0.1)
    refused = ask(prepared(other_order="refuse"), "d2", "d1")
    assert isinstance(refused, Failure) and refused.kind is FailureKind.NOT_RECORDED
    rows.append({"query": "q", "a": "d2", "b": "d1", "preference": 0.4, "judge": "x"})
    own = ask(prepared(), "d2", "d1")
    assert isinstance(own, Verdict) and own.preference == pytest.approx(
        0.4
    )  # recorded in both orders: nothing is mirrored


def test_a_pair_that_nobody_recorded_is_a_failure_that_costs_nothing(rows: list[dict[str, Any]]) -> None:
    answer = ask(prepared(), "d1", "d3")
    assert isinstance(answer, Failure) and answer.kind is FailureKind.NOT_RECORDED
    assert not answer.retryable and answer.usage.cost_micros == answer.usage.input_tokens == 0
    assert "use the design `recorded`" in answer.message


def test_answers_about_other_texts_are_left_out(rows: list[dict[str, Any]]) -> None:
    rows[0] |= {"a_hash": text_hash("one")[:16], "query_hash": text_hash("which")}
    assert prepared().left_out == 0
    rows[0]["b_hash"] = text_hash("another text")[:16]
    judge = prepared()
    assert judge.left_out == 1 and judge.recorded_pairs(1) == []
    assert isinstance(ask(judge, "d1", "d2"), Failure)


def test_ties_and_answers_without_a_preference_are_replayed(rows: list[dict[str, Any]]) -> None:
    rows[0] = {"query": "q", "a": "d1", "b": "d2", "winner": "tie", "judge": "x"}
    assert ask(prepared(), "d2", "d1") == Verdict(0.5)
    rows[0]["winner"] = "both_irrelevant"
    neither = ask(prepared(), "d1", "d2")
    assert isinstance(neither, Verdict) and neither.preference is None


def test_a_judge_must_be_in_the_file_and_a_file_in_the_storage(rows: list[dict[str, Any]]) -> None:
    with pytest.raises(JudgeNotRecorded, match="it holds answers of: x, y"):
        prepared(judge="z")
    with pytest.raises(JudgeNotRecorded):
        prepared(judge="")
    assert RecordedJudge.problems({"recording": "d" * 64}) == ["there is no such file"]
    for path in ("/etc/passwd", "../other", "C" * 64):
        with pytest.raises(pydantic.ValidationError, match="never a path"):
            RecordedJudge.from_dict({"recording": path})


def test_it_keeps_the_contract_of_judges(rows: list[dict[str, Any]]) -> None:
    recorded._by_judge.cache_clear()
    rows[:] = [{"query": "1", "a": "1", "b": "2", "preference": 0.8, "judge": "x"}]
    assert_plugin(RecordedJudge, options={"recording": CHECKSUM, "judge": "x"})
