"""Bodies that look like an answer and state none, or another one; errors that look like an outage or a wrong key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labeling.records import Comparison, FailureKind, TextRecord
from workers.judges.examples import WorkedExample, examples_for
from workers.judges.openai.answers import NoAnswer, read_score
from workers.judges.openai.http.batch_client import _lines, read_line
from workers.judges.openai.http.statuses import failure_of_status, status_of_error
from workers.judges.openai.many_labels import read_label_masses, read_ranking
from workers.judges.openai.reading.failures import Cause

LETTERS = "ABCD"


def saying(text: str, **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": text, **message}, "finish_reason": "stop"}]}


def listing(*tokens: tuple[str, float]) -> dict[str, Any]:
    (text, value), rows = tokens[0], [{"token": token, "logprob": logprob} for token, logprob in tokens[1:]]
    logprobs = {"content": [{"token": text, "logprob": value, "top_logprobs": rows}]}
    return {"choices": [{"message": {"content": text}, "logprobs": logprobs, "finish_reason": "length"}]}


@pytest.mark.parametrize(
    "body", [listing(("A", 0.0)), listing(("A", 0.0), ("A", 0.0)), listing(("A", 0.0), ("B", -9999.0), ("C", -9999.0))]
)
def test_a_floor_needs_two_listed_tokens(body: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer) as caught:
        read_label_masses(body, "ABC", least_mass=0.8, missing="floor")
    assert caught.value.cause is Cause.NO_ALTERNATIVES


def test_a_floor_is_at_most_what_the_labels_leave() -> None:
    found = read_label_masses(listing(("A", -0.6), ("A", -0.6), ("B", -0.82)), "ABC", least_mass=0.8, missing="floor")
    assert found.masses[2] is None and found.bound == pytest.approx(max(1 - sum(m or 0 for m in found.masses), 0))


@pytest.mark.parametrize(
    "text",
    [
        """{"best":"A"} {'best':'B'}""",
        """Draft {"best":"A"}. Final: {best: "B"}""",
        '[{"best":"A"}',
        '{"best":"A"},',
        '{"best":"A","ranking":"B > A > C > D"}',
        '{"best":"A","ranking":["B","A","C"]}',
        '{"best":"A","final_best":"B"}',
        '{"best":["A"],"ranking":["B","A","C","D"]}',
        '{"best":"AB"}',
        '{"best":""}',
    ],
)
def test_a_ranking_that_contradicts_itself_is_no_answer(text: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        read_ranking(saying(text), LETTERS)
    assert caught.value.kind is FailureKind.UNPARSEABLE


FIRST = '{"reasoning": "A names it", "score": 0.9}'


@pytest.mark.parametrize(
    "text",
    [
        f"{FIRST}\nFinal score: -0.9",
        f"{FIRST}\nscore: -0.9",
        f"{FIRST}\nEdit: -0.9",
        f"{FIRST}\nStrike that. B is better.",
        f"{FIRST}\nOops, I mixed the documents up.",
        f"{FIRST}\nHowever, this is reversed.",
        '{"score": 0.9, "new_score": -0.9}',
        '{"score": 0.9, "score_final": -0.9}',
    ],
)
def test_a_score_that_is_taken_back_is_no_answer(text: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(text))
    assert read_score(saying(f"{FIRST}\nFinal score: 0.9")).preference_of_first == pytest.approx(0.95)


@pytest.mark.parametrize(
    "body",
    [
        saying(FIRST, phase="analysis"),
        saying(FIRST, thought=True),
        saying(FIRST, role="reasoning"),
        saying(FIRST, is_reasoning=True),
        {"choices": [{"channel": "analysis", "message": {"content": FIRST}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": [{"kind": "thinking", "text": FIRST}]}, "finish_reason": "stop"}]},
        {"choices": [{"message": {"content": FIRST}, "finish_reason": "stop", "stop_reason": "max_tokens"}]},
        {"choices": [{"message": {"content": FIRST}, "finish_reason": "stop", "incomplete_details": {"reason": "x"}}]},
    ],
)
def test_thinking_and_cut_answers_are_none_however_they_are_marked(body: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer):
        read_score(body)


def test_a_result_line_ends_at_its_line_feed_alone() -> None:
    answer = "line\u2028separator\u0085and more"
    rows = [{"custom_id": name, "response": {"status_code": 200, "body": {"text": answer}}} for name in ("1-1", "2-1")]
    content = b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in rows)
    chunks = [content[at : at + 7] for at in range(0, len(content), 7)]
    lines = [read_line(line.decode()) for line in _lines(iter(chunks)) if line.strip()]
    assert [(line.custom_id, line.body["text"]) for line in lines if line] == [("1-1", answer), ("2-1", answer)]


def test_a_forbidden_parameter_is_no_wrong_key() -> None:
    said = {"error": {"message": "You are not allowed to request logprobs from this model", "code": None}}
    failure = failure_of_status(403, {}, json.dumps(said))
    assert not failure.denied and failure.rejects is not None and failure.rejects.parameters == ("logprobs",)
    assert failure_of_status(403, {}, json.dumps({"error": {"message": "invalid key"}})).denied


@pytest.mark.parametrize(
    "error, status",
    [
        ({"code": "400"}, 400),
        ({"code": "invalid_api_key"}, 401),
        ({"type": "invalid_request_error"}, 400),
        ({"code": 429}, 429),
        ({"message": "x"}, 502),
        ("x", 502),
    ],
)
def test_an_error_under_status_200_has_the_status_that_it_states(error: Any, status: int) -> None:
    assert status_of_error(error) == status


def test_a_value_beyond_its_own_limit_is_no_overflow_of_the_context() -> None:
    said = {
        "error": {"message": "top_logprobs value 20 exceeds the maximum allowed value of 5", "param": "top_logprobs"}
    }
    failure = failure_of_status(400, {}, json.dumps(said))
    assert failure.kind is FailureKind.BAD_REQUEST and failure.rejects is not None


def test_a_query_of_the_same_words_gets_no_example_of_its_twin() -> None:
    example = WorkedExample(query_id=3, query="Who won  in 1998?", first="a", second="b", preference=0.9)
    query = TextRecord(7, "who won in 1998")
    a, b = TextRecord(1, "a"), TextRecord(2, "b")
    assert examples_for(Comparison(1, query, query, a, b), [example]) == []
    other = TextRecord(8, "who lost in 1998")
    assert examples_for(Comparison(1, other, other, a, b), [example]) == [example]
