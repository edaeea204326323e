"""Criteria of a rubric: asked about in the prompt, read one by one, combined by stated weights, never misread."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from labeling.annotation.criteria import Criterion, combined
from labeling.records import Comparison, FailureKind, TextRecord, Verdict
from tests.factories.http_panel import KEY, define_endpoints
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.judges.openai.answers import Asked, NoAnswer, read_criteria
from workers.judges.openai.judge import OpenAIHttpJudge
from workers.judges.prompting import cut_by_bytes

RUBRIC = (
    Criterion(name="answers", description="It answers the need behind the query.", weight=3),
    Criterion(name="up to date"),
)
OPTIONS = {"endpoint": "fake", "model": "m", "mode": "reasoned", "criteria": [each.model_dump() for each in RUBRIC]}


def comparison(*, swapped: bool = False) -> Comparison:
    query = TextRecord(1, "how do carp breathe")
    return Comparison(1, query, query, TextRecord(10, "by gills"), TextRecord(11, "a tax"), swapped=swapped)


def body(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def scores(**values: Any) -> str:
    return json.dumps({"reasoning": "A is exact.", "scores": {key.replace("_", " "): v for key, v in values.items()}})


def test_weights_combine_the_scores_and_the_rationale_names_each() -> None:
    answer = read_criteria(body(scores(answers=1.0, up_to_date=-0.6)), RUBRIC)
    assert answer.preference_of_first == pytest.approx((0.6 + 1) / 2)
    assert answer.rationale == "A is exact.\nanswers: +1.00; up to date: -0.60"
    assert combined(RUBRIC, {"answers": -1.0, "up to date": 1.0}) == -0.5


@pytest.mark.parametrize(
    "text",
    [
        scores(answers=0.5, up_to_date=0.5),
        '{"reasoning": "x", "Scores": {"ANSWERS": "0.5", "Up_To_Date": 0.5}}',
        f"```json\n{scores(answers=0.5, up_to_date=0.5)}\n```",
        f'{{"answer": {scores(answers=0.5, up_to_date=0.5)}}}',
        f"First I thought {scores(answers=-1, up_to_date=-1)}. After a second look: {scores(answers=0.5, up_to_date=0.5)}",
        '{"scores": {"answers": 0.5, "up to date": 0.5, "style": -1}, "score": 0.5}',
        '{"scores": {"answers": 0.5, "answers": 0.5, "up to date": 0.5}}',
    ],
)
def test_spellings_and_wrappers_are_read(text: str) -> None:
    assert read_criteria(body(text), RUBRIC).preference_of_first == 0.75


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (scores(answers=0.5), "no score of 'up to date'"),
        (scores(answers=0.5, up_to_date=None), "its score of 'up to date' is None"),
        (scores(answers=0.5, up_to_date=1.5), "its score of 'up to date' is 1.5"),
        ('{"scores": {"answers": NaN, "up to date": 0}}', "its score of 'answers' is nan"),
        ('{"scores": {"answers": 1, "answers": -1, "up to date": 0}}', "two different scores of 'answers'"),
        ('{"scores": {"answers": 1, "Answers": -1, "up to date": 0}}', "two different scores of 'answers'"),
        (
            '{"scores": {"answers": 1, "up to date": 1}, "scores": {"answers": -1, "up to date": -1}}',
            '"scores" of its own',
        ),
        (
            '{"scores": {"answers": 1, "up to date": 0.8}, "score": -1}',
            "an overall score that its scores do not lead to",
        ),
        ('{"winner": "B", "scores": {"answers": 1, "up to date": 0.8}}', "its scores and another field"),
        ('{"winner": "tie", "scores": {"answers": 1, "up to date": 0.8}}', "its scores and another field"),
        ('{"score_a": 1, "score_b": 3, "scores": {"answers": 1, "up to date": 0.8}}', "its scores and another field"),
        ('{"draft": true, "scores": {"answers": 1, "up to date": 0.8}}', "says that its scores are not an answer"),
        ('{"scores": [1, 0]}', 'no "scores" of its own'),
        ('{"reasoning": "x", "score": 0.5}', 'no JSON object with a "scores"'),
        (f"{scores(answers=1, up_to_date=1)} or {scores(answers=-1, up_to_date=-1)}", "no order between them"),
        (scores(answers=1, up_to_date=1)[:-8], "cut off"),
        ("A is better by all criteria.", 'no JSON object with a "scores"'),
        (f"For example: {scores(answers=1, up_to_date=1)}", 'no JSON object with a "scores"'),
        (f"<think>{scores(answers=1, up_to_date=1)}</think>", ""),
        (f"{scores(answers=1, up_to_date=1)} Wait, that is wrong.", "takes it back"),
    ],
)
def test_an_answer_that_does_not_state_every_criterion_once_is_a_failure(text: str, says: str) -> None:
    with pytest.raises(NoAnswer) as failure:
        read_criteria(body(text), RUBRIC, asked=Asked("reasoned"))
    assert says in str(failure.value) and failure.value.kind == FailureKind.UNPARSEABLE


def test_the_prompt_asks_about_each_criterion_and_the_frame_counts_them() -> None:
    judge = OpenAIHttpJudge.from_dict(OPTIONS)
    assert isinstance(judge, OpenAIHttpJudge)
    prompt = judge.prompt(comparison(), cut_by_bytes).user
    assert "- answers: It answers the need behind the query.\n- up to date\n" in prompt
    assert '"scores": {"answers": a number from -1 to 1, "up to date": a number from -1 to 1}}' in prompt
    assert prompt.split("[[END DOCUMENT B")[1].split("]]", 1)[1].strip() in judge.frame("")
    plain = OpenAIHttpJudge.from_dict({**OPTIONS, "criteria": []})
    assert plain.prompt_hash != judge.prompt_hash and "criteria" in judge.added_options
    schema = judge.request(judge.prompt(comparison(), cut_by_bytes))["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["scores"]["required"] == ["answers", "up to date"]
    example = {"query_id": 7, "query": "q", "first": "f", "second": "s", "preference": 0.9, "why": "It is exact."}
    taught = OpenAIHttpJudge.from_dict({**OPTIONS, "examples": [example]})
    assert isinstance(taught, OpenAIHttpJudge)
    shown = taught.prompt(comparison(), cut_by_bytes).user
    assert "Note: It is exact.\nAnswer of the people of this project: Document A is the more relevant." in shown


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mode": "logprob"}, "criteria need the mode 'reasoned'"),
        ({"criteria": [{"name": "fresh"}, {"name": "Fresh"}]}, "the criterion Fresh appears twice"),
        ({"criteria": [{"name": "Score"}]}, "Score is a word of the answer's format"),
        ({"criteria": [{"name": "fresh", "weight": 0}]}, "greater than 0"),
        ({"criteria": [{"name": 'fresh": 1'}]}, "match pattern"),
        ({"criteria": [{"name": f"c{n}"} for n in range(9)]}, "at most 8"),
    ],
)
def test_a_rubric_that_cannot_be_asked_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(pydantic.ValidationError, match=says):
        OpenAIHttpJudge.from_dict({**OPTIONS, **changes})


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path_factory.mktemp("criteria") / "ledger.jsonl", "--api-key", KEY) as judge:
        yield judge


@pytest.mark.parametrize("response_format", ["json_schema", "json_object", "none"])
def test_both_orders_get_the_same_answer_over_http(
    fake: FakeJudge, monkeypatch: pytest.MonkeyPatch, response_format: str
) -> None:
    define_endpoints(monkeypatch, fake)
    judge = OpenAIHttpJudge.from_dict({**OPTIONS, "response_format": response_format})
    assert isinstance(judge, OpenAIHttpJudge)
    answers = judge.judge([comparison(), comparison(swapped=True)])
    one, other = (each for each in answers if isinstance(each, Verdict))
    assert one.preference == pytest.approx(other.preference) and "up to date: " in one.rationale
