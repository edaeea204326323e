"""Odd replies: none yields a preference that its final answer does not state, and readable ones are read."""

from __future__ import annotations

import json

import pydantic
import pytest

from labeling.access.redaction import redact, without_key
from tests.factories.replies.odd_bodies import odd_bodies
from tests.factories.replies.reading_checks import check
from tests.factories.replies.server_bodies import server_bodies
from workers.judges.openai import answers
from workers.judges.openai.answers import Answer, NoAnswer


class FirstThatMatches:
    """A careless reader, which the check must catch: the first score or letter anywhere in the body."""

    @staticmethod
    def read_score(body: object) -> Answer:
        import re

        match = re.search(r"score[^0-9-]{1,4}(-?[0-9.]+)", str(body))
        if match is None:
            raise ValueError("no score")
        return Answer((float(match[1].rstrip(".")) + 1) / 2)

    read_votes = read_logprobs = staticmethod(lambda *_, **__: Answer(1.0))


def test_no_odd_body_yields_a_preference_that_it_does_not_state() -> None:
    for mode, reading in check(answers, odd_bodies(2400, seed=20)).items():
        assert reading.wrong == [], mode
        assert len(reading.needless) <= 0.01 * reading.stating, mode


def test_replies_of_known_servers_are_read() -> None:
    for mode, reading in check(answers, server_bodies()).items():
        assert (reading.wrong, reading.needless) == ([], []), mode


def test_check_catches_a_careless_reader() -> None:
    assert all(len(reading.wrong) > 20 for reading in check(FirstThatMatches, odd_bodies(300, seed=2)).values())


@pytest.mark.parametrize("varies", [True, False])
def test_only_an_answer_that_can_vary_is_retried(varies: bool) -> None:
    body = {"choices": [{"message": {"content": "prose"}, "finish_reason": "stop"}]}
    with pytest.raises(NoAnswer) as problem:
        answers.read_score(body, asked=answers.Asked("reasoned", varies=varies))
    assert problem.value.retryable is varies


def test_cut_vote_names_a_remedy_with_an_effect() -> None:
    body = {"choices": [{"message": {"content": "Okay, so"}, "finish_reason": "length"}]}
    with pytest.raises(NoAnswer, match="thinking off") as problem:
        answers.read_votes([body], votes=1, asked=answers.Asked("sampled", True, token_limit=8, max_output_tokens=512))
    assert "max_output_tokens" not in str(problem.value)


@pytest.mark.parametrize("key", ["-", "token", "test", "password", "lm-studio", "Document"])
def test_placeholder_is_no_key(key: str) -> None:
    text = "The token of Document A is tested - by password in lm-studio."
    assert without_key(text, pydantic.SecretStr(key)) == text


def test_rationale_loses_the_own_key_and_nothing_else() -> None:
    text = "Document A explains key-value-stores; bearer tokens expire"
    assert without_key(text, pydantic.SecretStr("abc-0123456789")) == text
    assert without_key("sent abc-0123456789.", pydantic.SecretStr("abc-0123456789")) == "sent [key]."
    assert "expire" not in redact("bearer expire")


@pytest.mark.parametrize(
    "echo",
    [
        "no such key: Zk9+a/7&b=='q2",
        json.dumps({"error": "no such key: Zk9+a/7&b=='q2"}),
        '{"error": "no such key: Zk9+a\\/7&b==\'q2"}',
        "/v1/rerank?key=Zk9%2Ba%2F7%26b%3D%3D%27q2",
        "/v1/rerank?key=Zk9%2ba%2f7%26b%3d%3d%27q2",
        "/v1/rerank?key=Zk9%2Ba/7%26b%3D%3D%27q2",
        "/v1/Zk9+a/7&b=='q2/rerank",
        "<p>no such key: Zk9+a/7&amp;b==&#x27;q2</p>",
    ],
    ids=["plain", "json", "escaped slashes", "address", "lower case", "path", "encodeURI", "html"],
)
def test_a_key_is_found_however_a_server_spells_it(echo: str) -> None:
    cleaned = redact(echo, pydantic.SecretStr("Zk9+a/7&b=='q2\n"))
    assert "[key]" in cleaned and "Zk9" not in cleaned and "q2" not in cleaned
    redact(echo, pydantic.SecretStr("half \udcff of a key"))
