"""The judges `setwise` and `grade` against the fake judge: sets, pairs, grades that are paid once."""

from __future__ import annotations

import math
from typing import Any

import pytest

from labeling.plugins import Judge
from labeling.records import Comparison, FailureKind, TextRecord, Verdict
from tests.factories.questions import comparison, failure, numbers, verdict
from tests.fake_judge.process import FakeJudge
from tests.fake_judge.quality import quality_key
from workers.judges.openai.grade import GradeJudge
from workers.judges.openai.setwise import SetwiseJudge
from workers.judges.prompting import cut_by_bytes

pytestmark = pytest.mark.usefixtures("no_faults_left", "define")

QUERY = TextRecord(1, "what is a goldfish")


def know(fake: FakeJudge, **qualities: float) -> None:
    fake.control("settings", {"quality": {quality_key(text): value for text, value in qualities.items()}})


def setwise(**options: Any) -> SetwiseJudge:
    judge = SetwiseJudge.from_dict({"endpoint": "fake", "model": "fake", **options})
    assert isinstance(judge, SetwiseJudge)
    return judge


def grader(**options: Any) -> GradeJudge:
    judge = GradeJudge.from_dict({"endpoint": "fake", "model": "fake", **options})
    assert isinstance(judge, GradeJudge)
    return judge


def of_set(*texts: str) -> Comparison:
    documents = tuple(TextRecord(20 + place, text) for place, text in enumerate(texts))
    return Comparison(next(numbers), QUERY, QUERY, documents[0], documents[1], documents=documents)


def expit(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def test_one_call_answers_every_pair_of_a_set(fake: FakeJudge) -> None:
    know(fake, carp=1.5, crow=0.5, clay=-0.5)
    before = fake.summary()["calls"]
    answer = verdict(setwise().judge([of_set("crow", "carp", "clay")]))
    assert fake.summary()["calls"] == before + 1
    found = {(each.one, each.other): each.preference for each in answer.placed}
    assert found == {
        (0, 1): pytest.approx(expit(-1.0), abs=1e-6),
        (0, 2): pytest.approx(expit(1.0), abs=1e-6),
        (1, 2): pytest.approx(expit(2.0), abs=1e-6),
    }
    assert answer.usage.input_tokens > 0 and not answer.usage.calls


def test_a_ranking_orders_every_pair(fake: FakeJudge) -> None:
    know(fake, carp=1.5, crow=0.5, clay=-0.5)
    answer = verdict(setwise(mode="json").judge([of_set("clay", "carp", "crow")]))
    assert {(each.one, each.other) for each in answer.placed} == {(1, 2), (1, 0), (2, 0)}
    assert fake.ledger()[-1]["mode"] == "ranking"


@pytest.mark.parametrize("mode, expected", [("logprob", expit(1.0)), ("json", 1.0)])
@pytest.mark.parametrize("query_b", ["", "what is a bird"])
def test_a_pair_is_answered_as_by_other_judges(fake: FakeJudge, mode: str, expected: float, query_b: str) -> None:
    know(fake, carp=1.5, crow=0.5)
    for swapped in (False, True):
        answer = verdict(setwise(mode=mode).judge([comparison("carp", "crow", swapped=swapped, query_b=query_b)]))
        assert answer.preference == pytest.approx(expected, abs=1e-6) and not answer.placed


def test_little_mass_on_the_letters_is_a_failure(fake: FakeJudge) -> None:
    fake.control("faults", {"next": ["low_label_mass"]})
    assert failure(setwise().judge([of_set("crow", "carp", "clay")])).kind is FailureKind.LABEL_MASS


@pytest.mark.parametrize("texts", [("carp", "crow"), ("carp", "crow", "clay"), tuple("abcdefg")])
def test_the_schema_allows_the_letters_of_the_set_and_no_others(texts: tuple[str, ...]) -> None:
    judge = setwise(mode="json", documents=8)
    question = of_set(*texts) if len(texts) > 2 else comparison(*texts)
    form = judge.request(judge.prompt(question, cut_by_bytes))["response_format"]
    schema, letters = form["json_schema"]["schema"], list("ABCDEFGH"[: len(texts)])
    assert (form["type"], form["json_schema"]["strict"], schema["required"]) == (
        "json_schema",
        True,
        ["best", "ranking"],
    )
    assert schema["properties"]["best"]["enum"] == schema["properties"]["ranking"]["items"]["enum"] == letters
    assert not schema["additionalProperties"]
    for other in ("json_object", "none"):
        body = setwise(mode="json", response_format=other).request(judge.prompt(question, cut_by_bytes))
        assert body.get("response_format", {"type": "none"}) == {"type": other}


def test_a_server_that_rejects_the_schema_gets_another_format(fake: FakeJudge) -> None:
    know(fake, carp=1.5, crow=0.5, clay=-0.5)
    fake.set_judge("strict", dialect=["python_json_object"])
    answer = verdict(setwise(mode="json", model="strict").judge([of_set("clay", "carp", "crow")]))
    assert {(each.one, each.other) for each in answer.placed} == {(1, 2), (1, 0), (2, 0)}


def test_options_bound_the_set() -> None:
    assert setwise().set_size == 4 and setwise(documents=8).set_size == 8
    assert SetwiseJudge.set_size is not Judge.set_size
    with pytest.raises(ValueError, match="documents"):
        setwise(documents=2)


def test_each_document_is_graded_once(fake: FakeJudge) -> None:
    judge = grader()
    texts = [TextRecord(30 + place, f"text number {place}") for place in range(5)]
    pairs = [(a, b) for a in texts for b in texts if a.id < b.id]
    questions = [Comparison(next(numbers), QUERY, QUERY, a, b, swapped=a.id % 2 == 0) for a, b in pairs]
    before = fake.summary()["calls"]
    answers = judge.judge(questions)
    assert fake.summary()["calls"] == before + len(texts)
    verdicts = [answer for answer in answers if isinstance(answer, Verdict)]
    assert len(verdicts) == len(pairs)
    grades = {each.document_id: each.value for answer in verdicts for each in answer.grades}
    for (a, b), answer in zip(pairs, verdicts, strict=True):
        assert answer.preference == pytest.approx(expit((grades[a.id] - grades[b.id]) / 0.15))
    made = [len(answer.usage.calls) or bool(answer.usage.input_tokens) for answer in verdicts]
    assert sum(made) == len(texts), "each call is booked for one pair"


@pytest.mark.parametrize("scale", ["0-3", "0-9"])
def test_a_grade_is_the_expected_value_of_its_labels(fake: FakeJudge, scale: str) -> None:
    know(fake, superb=8.0, middling=0.0, dreadful=-8.0)
    judge = grader(scale=scale)
    best = verdict(judge.judge([comparison("superb", "dreadful")]))
    assert best.grades[0].value > 0.9 > 0.1 > best.grades[1].value
    grades = verdict(
        judge.judge([Comparison(next(numbers), QUERY, QUERY, TextRecord(50, "middling"), TextRecord(11, "dreadful"))])
    ).grades
    assert grades[0].value == pytest.approx(0.5, abs=0.01)


def test_a_failed_grade_fails_its_pair_and_is_asked_again(fake: FakeJudge) -> None:
    judge = grader()
    fake.control("faults", {"next": ["refusal"]})
    assert failure(judge.judge([comparison("one", "two")])).kind is FailureKind.REFUSAL
    assert isinstance(judge.judge([comparison("one", "two")])[0], Verdict)


def test_earlier_grades_are_read_before_the_first_call(fake: FakeJudge) -> None:
    judge = grader()
    graded = verdict(judge.judge([comparison("old", "older")])).grades

    class Collection:
        def own_grades(self, most: int) -> list[Any]:
            return list(graded)

    again = grader()
    again.prepare(Collection())  # type: ignore[arg-type]  # of a collection, the judge reads its own grades alone
    before = fake.summary()["calls"]
    verdict(again.judge([comparison("old", "older")]))
    assert fake.summary()["calls"] == before
