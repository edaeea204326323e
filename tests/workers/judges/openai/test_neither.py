"""Judges that may answer that neither document is relevant: asked for it, read, stored apart from preferences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pydantic
import pytest

from labeling.records import AnswerKind, Comparison, TextRecord, Verdict
from tests.factories.http_panel import KEY, define_endpoints
from tests.fake_judge.process import FakeJudge, running_fake_judge
from workers.judges.openai.answers import NoAnswer, read_score_or_neither
from workers.judges.openai.judge import OpenAIHttpJudge

OPTIONS = {"endpoint": "fake", "model": "m", "mode": "reasoned", "neither": True}


def body(text: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": text}
    return {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


@pytest.mark.parametrize(
    ("text", "neither"),
    [
        ('{"reasoning": "Both are about tax.", "score": 0, "neither": true}', True),
        ('{"reasoning": "B helps.", "score": -0.5, "neither": false}', False),
        ('{"reasoning": "B helps.", "score": -0.5}', False),
        ('{"reasoning": "x", "score": 0.1, "Neither": true}', True),
        ('{"answer": {"reasoning": "x", "score": 0.1, "neither": true}}', True),
        ('First {"score": 0.2, "neither": true}, but after a second look: {"score": 0.2, "neither": false}', False),
    ],
)
def test_the_last_object_says_it(text: str, neither: bool) -> None:
    assert read_score_or_neither(body(text)).neither is neither


@pytest.mark.parametrize("value", ['"maybe"', "1", "null", 'true, "neither": false'])
def test_anything_but_true_or_false_is_no_answer(value: str) -> None:
    with pytest.raises(NoAnswer):
        read_score_or_neither(body(f'{{"reasoning": "x", "score": 0.5, "neither": {value}}}'))


def test_it_needs_a_reasoned_score_and_is_another_judge_only_where_it_is_on() -> None:
    for wrong in ({"mode": "logprob"}, {"criteria": [{"name": "a"}]}):
        with pytest.raises(pydantic.ValidationError, match="neither needs the mode"):
            OpenAIHttpJudge.from_dict({**OPTIONS, **wrong})
    plain = OpenAIHttpJudge.from_dict({**OPTIONS, "neither": False})
    assert plain.prompt_hash != OpenAIHttpJudge.from_dict(OPTIONS).prompt_hash
    assert "neither" in OpenAIHttpJudge.added_options


@pytest.fixture(scope="module")
def fake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeJudge]:
    with running_fake_judge(tmp_path_factory.mktemp("neither") / "ledger.jsonl", "--api-key", KEY) as judge:
        yield judge


def test_the_answer_comes_over_http_and_has_no_preference(fake: FakeJudge, monkeypatch: pytest.MonkeyPatch) -> None:
    define_endpoints(monkeypatch, fake)
    query = TextRecord(1, "how do carp breathe")
    asked = Comparison(1, query, query, TextRecord(10, "by gills"), TextRecord(11, "a tax"), swapped=False)
    for model, kind in (("says-neither", AnswerKind.BOTH_IRRELEVANT), ("m", AnswerKind.PREFERENCE)):
        (answer,) = OpenAIHttpJudge.from_dict({**OPTIONS, "model": model}).judge([asked])
        assert isinstance(answer, Verdict) and answer.kind is kind and answer.rationale
        assert (answer.preference is None) == (kind is AnswerKind.BOTH_IRRELEVANT)
    (plain,) = OpenAIHttpJudge.from_dict({**OPTIONS, "model": "says-neither", "neither": False}).judge([asked])
    assert isinstance(plain, Verdict) and plain.kind is AnswerKind.PREFERENCE
