"""Bodies that look like an answer and state none, or another one; errors that look like an outage or a wrong key."""

from __future__ import annotations

import json
from typing import Any

import pytest

from labeling.records import Comparison, FailureKind, TextRecord
from workers.endpoints.learned import Learned
from workers.judges.examples import WorkedExample, examples_for
from workers.judges.openai.answers import NoAnswer, read_logprobs, read_score, read_votes
from workers.judges.openai.http.adaptation import adapted, lesson
from workers.judges.openai.http.batch_client import _lines, read_line
from workers.judges.openai.http.statuses import error_of, failure_of_status, retry_after_s, status_of_error
from workers.judges.openai.http.streams import StreamError, read_stream
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
        '{"best":"A","tie":true}',
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
        ({"detail": "Model m not found"}, 404),
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


@pytest.mark.parametrize(
    "body",
    [
        saying([{"type": {"a": 1}, "text": FIRST}]),  # type: ignore[arg-type]
        {"choices": [{"message": {"content": FIRST}, "finish_reason": "stop", "stop_reason": ["max_tokens"]}]},
        {"status": "completed", "output": [{"type": "message", "content": [{"type": "output_text", "text": FIRST, "logprobs": 5}]}]},
    ],
)  # fmt: skip
def test_a_field_of_another_type_breaks_no_reader(body: dict[str, Any]) -> None:
    """A reader answers or says why not; anything else would be shown as an error of the program."""
    for read in (read_score, lambda each: read_votes([each], votes=1), lambda each: read_ranking(each, LETTERS)):
        try:
            read(body)
        except NoAnswer:
            continue


def test_errors_and_streams_with_fields_of_another_type_are_read() -> None:
    rows = [{"loc": "seed", "msg": "extra fields not permitted"}, {"loc": 5, "msg": 1}, {"loc": None}]
    rejects = failure_of_status(422, {}, json.dumps({"detail": rows})).rejects
    assert rejects is not None and rejects.parameters == ("seed", "5")
    pieces = [{"choices": [{"index": 0, "delta": {"content": each}}]} for each in ([{"text": None}], FIRST)]
    pieces.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    content = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in pieces) + b"data: [DONE]\n\n"
    assert read_score(read_stream(content)).preference_of_first == pytest.approx(0.95)


A, B = FIRST, '{"reasoning": "B names it", "score": -0.9}'


@pytest.mark.parametrize(
    "between",
    [
        " or, if you prefer, ", " or ", "\nAlternatively: ", "\nI could also have answered ", "\nJudge 2: ", "\nQuery 2: ", "\n",
        "\nA naive judge would say: ", ". The opposite would be ", "\n(For the swapped order: ", "\nAnother annotator finally said: ",
        "\nFor comparison, the earlier answer was: ", "\nIf A were older, then finally: ", "\nStep 2: ", "\n---\n", "\nTranslated: ",
        " is my final answer, and so a wrong final answer: ", "\nUser: and now?\nAnswer: ", "\nNote. Perhaps, finally: ",
    ],
)  # fmt: skip
def test_a_later_object_counts_only_where_words_of_finality_lead_to_it(between: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f"{A}{between}{B}"))
    ranking = f'{{"best": "A"}}{between}{{"best": "B"}}'
    with pytest.raises(NoAnswer):
        read_ranking(saying(ranking), LETTERS)
    assert read_score(saying(f"{A}{between}{A}")).preference_of_first == pytest.approx(0.95)


@pytest.mark.parametrize("words", [" not: ", "\nAn example of a wrong answer: ", ", never ", "\nA bad reply would be "])
def test_an_object_that_is_said_to_be_no_answer_never_wins(words: str) -> None:
    for text in (f"{A}{words}{B}", f"{words}{B}"):
        try:
            assert read_score(saying(text)).preference_of_first == pytest.approx(0.95)
        except NoAnswer:
            continue


@pytest.mark.parametrize(
    "between",
    ["\nFinal answer: ", "\n\n### Final Answer\n", "\nOn reflection, the answer is: ", " → ", "\n**Revised:**\n```json\n",
     "\nB has more, so finally: ", "\nWait, that is wrong.\n", "\nAfter a closer look: "],
)  # fmt: skip
def test_a_later_object_with_words_of_finality_is_the_answer(between: str) -> None:
    assert read_score(saying(f"{A}{between}{B}")).preference_of_first == pytest.approx(0.05)


def test_two_final_answers_contradict_each_other() -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f"Final answer: {A}\nFinal answer: {B}"))
    assert read_score(saying(f"Final answer: {A}\nCorrected: {B}")).preference_of_first == pytest.approx(0.05)


@pytest.mark.parametrize(
    "field",
    [
        '"winner": "B"',
        '"final": {"score": -0.9}',
        '"better_document": "Document B"',
        '"total_score": -0.9',
        '"final": -1',
    ],
)
def test_a_field_that_contradicts_the_score_is_a_failure(field: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f'{{"score": 0.9, {field}}}'))


TAGS = [
    ("◁think▷", "◁/think▷"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"), ("<reasoning>", "</reasoning>"),
    ("【思考】", "【/思考】"), ("<思考>", "</思考>"), ("⟨think⟩", "⟨/think⟩"), ("«think»", "«/think»"), ("<denken>", "</denken>"),
    ("\\<think\\>", "\\</think\\>"), ("&#60;think&#62;", "&#60;/think&#62;"), ("<thi\u200bnk>", "</thi\u200bnk>"),
    ("~~~thinking\n", "\n~~~\n"), ("[BEGIN THINKING]", "[END THINKING]"), ("(think)", "(/think)"), ("<ctrl94>", "<ctrl95>"),
    ("◁musing▷", "◁/musing▷"), ("<details><summary>Thoughts</summary>", "</details>"), ("<|思考|>", "<|/思考|>"),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), TAGS, ids=[tag.strip() for tag, _ in TAGS])
def test_thinking_of_any_tag_is_no_answer(opening: str, closing: str) -> None:
    assert read_score(saying(f"{opening}{A}{closing}\n{B}")).preference_of_first == pytest.approx(0.05)
    for text in (f"{opening}{A}", f"{opening}{A}{closing}"):
        with pytest.raises(NoAnswer):
            read_score(saying(text))
        with pytest.raises(NoAnswer):
            read_votes([saying(text.replace(A, "A"))], votes=1)
    if not opening.startswith("~"):
        assert read_score(saying(f"{A}{closing}\n{B}")).preference_of_first == pytest.approx(0.05)


def labelled(text: str) -> dict[str, Any]:
    body = listing(("A", -0.1), ("A", -0.1), ("B", -2.4))
    body["choices"][0]["message"]["content"] = text
    return body


@pytest.mark.parametrize(
    ("text", "states"),
    [
        ("A", True), (" A.", True), ("**A**", True), ("A is more relevant because it names", True), ("A\n\nDocument A names", True),
        ("Document A", True), ("", True), ("A is wrong", False), ("A/B", False), ("A or B", False), ("A careful look", False),
        ("A and B", False), ("A\nB", False), ("A? No, B", False), ("A is not the better", False), ("A is more relevant, or B", False),
        ("A\nWait, no: B", False), ("A-", False), ("Both", False), ("A is less relevant", False),
    ],
)  # fmt: skip
def test_the_label_must_be_the_answer(text: str, states: bool) -> None:
    if states:
        assert read_logprobs(labelled(text), least_mass=0.8, missing="fail").preference_of_first > 0.9
        return
    with pytest.raises(NoAnswer):
        read_logprobs(labelled(text), least_mass=0.8, missing="fail")


def test_items_of_responses_that_are_not_final_are_no_answers() -> None:
    def body(**item: Any) -> dict[str, Any]:
        message = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": A}], **item}
        return {"object": "response", "status": "completed", "output": [message]}

    assert read_score(body(status="completed", phase="final_answer")).preference_of_first == pytest.approx(0.95)
    for spoiled in (
        body(status="incomplete"), body(phase="commentary"), body(role="user"), body(status="failed"), body(channel="analysis"),
        {**body(), "incomplete_details": {"reason": "max_output_tokens"}},
        {**body(), "output": [*body()["output"], {"type": "function_call", "name": "x", "arguments": "{}"}]},
    ):  # fmt: skip
        with pytest.raises(NoAnswer):
            read_score(spoiled)


def stream(*deltas: dict[str, Any], more: list[Any] | None = None) -> bytes:
    rows = [{"choices": [{"index": 0, **each}]} for each in deltas] + (more or [])
    return b"".join(b"data: " + json.dumps(row).encode() + b"\n\n" for row in rows) + b"data: [DONE]\n\n"


STOP = {"delta": {}, "finish_reason": "stop"}


@pytest.mark.parametrize(
    ("deltas", "states"),
    [
        ([{"delta": {"role": "assistant", "content": A[:9]}}, {"delta": {"content": A[9:]}}, STOP], True),
        ([{"delta": {"content": B, "channel": "analysis"}}, {"delta": {"content": A, "channel": "final"}}, STOP], True),
        ([{"delta": {"reasoning_details": [{"text": B}]}}, {"delta": {"content": A}}, STOP], True),
        ([{"delta": {"content": [{"type": "thinking", "thinking": B}]}}, {"delta": {"content": A}}, STOP], True),
        ([{"text": A, "finish_reason": "stop"}], True),
        ([{"delta": {"content": A, "channel": "analysis"}}, STOP], False),
        ([{"delta": {"content": A, "role": "reasoning"}}, STOP], False),
        ([{"delta": {"content": A, "role": "tool"}}, STOP], False),
        ([{"delta": {"content": A}}, {"delta": {"tool_calls": [{"index": 0, "id": "1"}]}}, STOP], False),
        ([{"delta": {"content": A}}, {"delta": {}, "error": {"message": "gone"}}, STOP], False),
        ([{"delta": {"content": A}}, {"delta": {"error": "gone"}}, STOP], False),
        ([{"delta": {"content": A}}, STOP, {"delta": {}, "finish_reason": "length"}], False),
        ([{"delta": {"content": A}}, STOP, {"delta": {}, "finish_reason": "content_filter"}], False),
        ([{"delta": {"content": A, "thinking": "x"}, "phase": "commentary"}, STOP], False),
        ([{"delta": {"content": A}}, {"delta": {"refusal": "I cannot"}}, STOP], False),
    ],
)  # fmt: skip
def test_a_stream_is_read_as_the_reply_that_it_adds_up_to(deltas: list[dict[str, Any]], states: bool) -> None:
    body = read_stream(stream(*deltas))
    if states:
        assert read_score(body).preference_of_first == pytest.approx(0.95)
        return
    with pytest.raises(NoAnswer):
        read_score(body)


@pytest.mark.parametrize("event", [{"type": "error", "message": "x"}, {"detail": "x"}, {"error": {"message": "x"}}])
def test_an_error_among_the_events_fails_the_stream(event: dict[str, Any]) -> None:
    with pytest.raises(StreamError):
        read_stream(stream({"delta": {"content": A}}, STOP, more=[event]))


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (400, "Failed to parse grammar"), (500, "Failed to initialize samplers: failed to parse grammar"),
        (500, "JSON schema conversion failed: Unrecognized schema"), (400, "Invalid grammar specification: xgrammar"),
        (500, "structured outputs are not available"), (422, "guided_json is not enabled"),
        (400, "invalid JSON schema in format"),
    ],
)  # fmt: skip
def test_a_grammar_that_cannot_be_built_teaches_another_format(status: int, message: str) -> None:
    failure = failure_of_status(status, {}, json.dumps({"error": {"message": message, "code": status}}))
    assert failure.rejects is not None and not failure.retryable
    request = {"response_format": {"type": "json_schema"}, "max_tokens": 512}
    assert lesson(request, failure.rejects) == Learned(response_format="json_object")


@pytest.mark.parametrize(
    ("message", "learned"),
    [
        ("this model is not supported MaxTokens, please use MaxCompletionTokens", Learned(token_limit_field="max_completion_tokens")),
        ("The parameter `Temperature` specified in the request is not valid", Learned(omitted=frozenset({"temperature"}))),
        ("For 'number' type, properties maximum, minimum are not supported", Learned(response_format="json_object")),
        ("output_config.format.schema: For 'number' type, property 'minimum' is not supported", Learned(response_format="json_object")),
        ("System role not supported", Learned(omitted=frozenset({"system"}))),
        ("Unsupported value: 'messages[0].role' does not support 'system' with this model.", Learned(omitted=frozenset({"system"}))),
        ("Unknown role: system", Learned(omitted=frozenset({"system"}))),
        ("KeyError: 'json_schema'", Learned(response_format="json_object")),
        ("Conversation roles must alternate user/assistant/user/assistant", Learned(omitted=frozenset({"system"}))),
    ],
)  # fmt: skip
def test_a_rejection_teaches_whatever_its_wording(message: str, learned: Learned) -> None:
    request = {
        "max_tokens": 512, "temperature": 0, "response_format": {"type": "json_schema"},
        "messages": [{"role": "system", "content": "Judge."}, {"role": "user", "content": "A or B?"}],
    }  # fmt: skip
    rejects = failure_of_status(400, {}, json.dumps({"error": {"message": message}})).rejects
    assert rejects is not None and lesson(request, rejects) == learned
    if "system" in learned.omitted:
        sent = adapted(request, learned)
        assert sent["messages"] == [{"role": "user", "content": "Judge.\n\nA or B?"}]
        assert lesson(sent, rejects) is None


@pytest.mark.parametrize(
    "message",
    ["Only n=1 is supported", "Multiple candidates is not enabled for this model", "best_of must be 1 when using greedy sampling",
     "candidateCount value of 5 but the supported range is from 1 to 1"],
)  # fmt: skip
def test_an_endpoint_that_gives_one_choice_is_asked_vote_by_vote(message: str) -> None:
    rejects = failure_of_status(400, {}, json.dumps({"error": {"message": message}})).rejects
    assert rejects is not None and lesson({"n": 5, "messages": []}, rejects) == Learned(n="ignored")


@pytest.mark.parametrize(
    ("body", "is_error"),
    [
        ({"success": False, "message": "invalid key", "code": 401}, True), ({"detail": "Not found"}, True), ({"error": "overloaded"}, True),
        ({"error": {}, "choices": [{}]}, False), ({"message": "A", "done": True}, False), ({"choices": []}, False),
    ],
)  # fmt: skip
def test_an_error_under_a_status_of_success_is_found(body: dict[str, Any], is_error: bool) -> None:
    assert (error_of(body) is not None) is is_error


@pytest.mark.parametrize(
    ("stated", "waits"), [("inf", None), ("nan", None), ("1500", 1.5), ("-1", 0.0), ("9e99", 3600.0)]
)
def test_a_wait_that_is_no_time_is_no_wait(stated: str, waits: float | None) -> None:
    assert retry_after_s({"retry-after-ms": stated}) == waits


@pytest.mark.parametrize(
    ("message", "floor"),
    [
        ("Invalid 'max_output_tokens': integer below minimum value. Expected a value >= 16, but got 1 instead.", 16),
        ("max_tokens must be at least 16", 16),
        ("max_tokens: Input should be greater than or equal to 2", 2),
        ("max_tokens must be greater than 1", 2),
    ],
)
def test_a_floor_of_output_tokens_is_learned(message: str, floor: int) -> None:
    failure = failure_of_status(400, {}, json.dumps({"error": {"message": message}}))
    request = {"max_tokens": 1, "logprobs": True}
    assert failure.rejects is not None
    change = lesson(request, failure.rejects)
    assert change == Learned(least_tokens=floor)
    assert adapted(request, Learned().merged(Learned(least_tokens=floor)))["max_tokens"] == floor
    assert lesson(request, failure_of_status(400, {}, '{"detail": "max_tokens must be at least 500"}').rejects) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "error", "is_denied", "kind", "remedy"),
    [
        (400, {"message": "API key not valid. Please pass a valid API key.", "status": "INVALID_ARGUMENT"}, True, "bad_request", "correct the key"),
        (400, {"message": "API key expired. Please renew the API key."}, True, "bad_request", "correct the key"),
        (401, {"message": "Incorrect API key provided: x", "code": "invalid_api_key"}, True, "bad_request", "correct the key"),
        (429, {"message": "You exceeded your current quota", "code": "insufficient_quota"}, False, "over_budget", "add credit"),
        (400, {"message": "Billing hard limit has been reached", "code": "billing_hard_limit_reached"}, False, "over_budget", "add credit"),
        (400, {"message": "Your credit balance is too low to access the Anthropic API."}, False, "over_budget", "add credit"),
        (402, {"message": "Insufficient Balance"}, False, "over_budget", "add credit"),
        (403, {"message": "The OpenAI account associated with this API key has been deactivated.", "code": "account_deactivated"}, False,
         "over_budget", "deactivated"),
        (429, {"message": "Your account is not active, please check your billing details", "code": "billing_not_active"}, False,
         "over_budget", "deactivated"),
        (401, {"message": "x", "code": "account_deactivated"}, False, "over_budget", "deactivated"),
        (429, {"message": "Rate limit reached for requests per minute", "code": "rate_limit_exceeded"}, False, "rate_limited", "lower rpm"),
        (429, {"message": "You exceeded your current quota, please check your plan", "status": "RESOURCE_EXHAUSTED",
               "details": [{"retryDelay": "3s"}]}, False, "rate_limited", "lower rpm"),
    ],
)  # fmt: skip
def test_trouble_with_key_or_account_is_named(status: int, error: Any, is_denied: bool, kind: str, remedy: str) -> None:
    failure = failure_of_status(status, {}, json.dumps({"error": error}))
    assert (failure.denied, failure.kind.value) == (is_denied, kind) and remedy in str(failure)
    assert failure.retryable is (kind == "rate_limited")


@pytest.mark.parametrize(
    "text",
    [
        "I was about to write {}", "One option: {}", "A lazy annotator's answer: {}", "As a joke: {}", "You could say: {}",
        "{} was my first thought, but I am not sure.", "A wrong answer follows.\n{}", "Here is what document B wants me to say: {}",
        "Last time I answered: {}", "Under another reading of the query: {}", "Pros of A lead to {}",
    ],
)  # fmt: skip
def test_an_object_that_a_sentence_only_mentions_is_a_failure_of_its_own_kind(text: str) -> None:
    with pytest.raises(NoAnswer) as caught:
        read_score(saying(text.replace("{}", A)))
    is_taken_back = text.startswith("{}")  # the words after an object are read first
    assert caught.value.cause is (Cause.CONTRADICTION if is_taken_back else Cause.MENTION)
    with pytest.raises(NoAnswer):
        read_ranking(saying(text.replace("{}", '{"best": "A"}')), LETTERS)
    assert read_score(saying(f"{text.replace('{}', A)}\nFinal answer: {B}")).preference_of_first == pytest.approx(0.05)
