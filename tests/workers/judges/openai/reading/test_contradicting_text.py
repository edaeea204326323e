"""Text, fields and marks beside an object that name another winner or score than it does, in all modes that read objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from labeling.annotation.criteria import Criterion
from workers.judges.openai.answers import (
    Answer,
    NoAnswer,
    read_criteria,
    read_logprobs,
    read_score,
    read_score_or_neither,
    read_votes,
)

CRITERIA = [Criterion(name=name, description="x", weight=1.0) for name in ("Topic", "Detail")]
Reader = Callable[[Any], Answer]
MODES: dict[str, tuple[Reader, str]] = {
    "score": (read_score, '{"reasoning": "It names it", "score": 0.9}'),
    "neither": (read_score_or_neither, '{"reasoning": "It names it", "score": 0.9, "neither": false}'),
    "criteria": (
        lambda body: read_criteria(body, CRITERIA),
        '{"reasoning": "It names it", "scores": {"Topic": 0.9, "Detail": 0.9}}',
    ),
}
in_all_modes = pytest.mark.parametrize("mode", MODES)


def saying(content: str) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}


def read(mode: str, text: str) -> Answer:
    reader, answer = MODES[mode]
    return reader(saying(text.replace("{}", answer)))


@in_all_modes
@pytest.mark.parametrize(
    "text",
    ["{}\nDocument A is better.", "{}\n\nDocument B is less relevant.", "{}\nFinal score: 0.9", "Document A is better.\n{}", "Score: 0.9\n{}",
     "Document B is about tanks, so it is less relevant.\n\n{}", "While document B is better written, document A answers.\n{}",
     "Document B is better written, but A answers.\n{}", "**Document A**: names it.\n**Document B**: is off-topic.\n\n{}", "Final answer for A and B: {}",
     "A score above 0 means that A is more relevant, below 0 that B is more relevant.\n\n{}", "Dokument A passt. Dokument B nicht, daher ist A relevanter.\n{}",
     "As you have requested, here is my answer: {}", "Please find my answer below: {}", "Below you will find my answer:\n{}",
     "Document B isn't more relevant.\n{}", "{}\nDocument B isn’t better."],
)  # fmt: skip
def test_text_that_agrees_keeps_the_answer(mode: str, text: str) -> None:
    assert read(mode, text).preference_of_first == pytest.approx(0.95)


@in_all_modes
@pytest.mark.parametrize(
    "text",
    ["{}\nDocument B is better.", "{}\nFinal score: -0.9", "{}\nOverall: -0.9", "{}\n-0.9", "B is more relevant: {}", "Document B is better.\n{}",
     "Answer: B\n{}", "B. {}", "I choose B.\n\n```json\n{}\n```", "The better document is B. {}", "Score: -0.9\n{}", "Document A is worse. {}",
     "文档B更相关。{}", "Dokument B ist relevanter.\n{}", "Verdict: B is better. JSON: {}",
     "{}\nA isn't more relevant.", "A isn’t better.\n{}"],
)  # fmt: skip
def test_text_that_names_another_winner_or_score_leaves_no_answer(mode: str, text: str) -> None:
    with pytest.raises(NoAnswer):
        read(mode, text)


AFTER = r"""
Only B answers.|B is clearly it.|B > A|A < B|\\boxed{B}|Make that -0.9.|Make it negative.|Negate that.|Flip the sign.|Score should read -0.9.|-0.9 is the right score.
Better: -0.9|Score (revised): -0.9|Not really.|Do not use this answer.|My answer above is wrong.|I got it backwards.|I have it the wrong way round.|I confused A and B.
B does a better job.|B takes it.|B ought to win.|In the end B.|To conclude, B.|The most relevant one is document B.|The second document is better.|The latter wins.
Document 2 is better.|The other one is better.|Both are equal.|Neither is relevant.|They are equally relevant.|I can't tell.|Replace the values with your own.
Fill in your own score.|(not final)|To be revised.|To be verified.
"""
AGREEING = """
Document A directly answers the question, while document B is about something else.|Both are relevant, but A is more direct.|Neither is perfect, but A is closer.
The first document is better.|The second document is less relevant.|The other one is about tanks.|Document 1 is better than document 2.|A > B|In short: A.|To conclude, A.
Only A answers.|Document B can't be used to answer the query.|It took me a while to decide.|Not everything in A is relevant, though.|Correct answer: A|\\boxed{A}
"""


def rows(table: str) -> list[str]:
    return [row.replace("\\\\", "\\") for line in table.strip().splitlines() for row in line.split("|")]


@pytest.mark.parametrize("after", rows(AFTER))
def test_a_sentence_that_takes_the_answer_back_leaves_none(after: str) -> None:
    for gap in ("\n", "\n\n", " "):
        with pytest.raises(NoAnswer):
            read("score", f"{{}}{gap}{after}")


@pytest.mark.parametrize("after", rows(AGREEING))
def test_a_sentence_that_explains_the_answer_keeps_it(after: str) -> None:
    assert read("score", f"{{}}\n\n{after}").preference_of_first == pytest.approx(0.95)


def reasoned(mode: str, reasoning: str) -> Answer:
    reader, answer = MODES[mode]
    return reader(saying(answer.replace("It names it", reasoning)))


@in_all_modes
@pytest.mark.parametrize(
    "reasoning",
    ["Document B is more relevant.", "B answers it. Therefore B is better.", "A is about tanks. So document B is clearly the better match because it names the pump.",
     "**Document B** is more relevant than A.", "Overall, B is the best answer", "B is better, as it names the pump.", "The second document is more relevant."],
)  # fmt: skip
def test_reasoning_that_concludes_with_the_other_document_leaves_no_answer(mode: str, reasoning: str) -> None:
    """A score of the wrong sign: text beside the object that says the same leaves none either."""
    with pytest.raises(NoAnswer):
        reasoned(mode, reasoning)


@in_all_modes
@pytest.mark.parametrize(
    "reasoning",
    ["A answers. B is better written.", "Although B is better, A answers.", "If the query meant tanks, B would be better.", "Document A is more relevant than document B.",
     "B is not more relevant.", "B is less relevant.", "It is unclear whether B is better.", "Vitamin B is better for you, A says.",
     "Document B is more relevant to tanks. Document A is more relevant to the query.", "Dokument A passt. Dokument B behandelt Panzer."],
)  # fmt: skip
def test_reasoning_that_weighs_both_documents_keeps_the_answer(mode: str, reasoning: str) -> None:
    assert reasoned(mode, reasoning).preference_of_first == pytest.approx(0.95)


def test_where_neither_is_relevant_a_sentence_may_say_so() -> None:
    said = '{"reasoning": "x", "score": 0.2, "neither": true}\nNeither is relevant. Document A is closer.'
    assert read_score_or_neither(saying(said)).neither is True


@in_all_modes
@pytest.mark.parametrize(
    "text",
    ["Answer B: {}", "Output of B: {}", "Answer according to B: {}", "Its answer: {}", "The answer above: {}", "Respond with: {}", "Output only: {}",
     "You need to output: {}", "Please answer: {}", "Ignore the following. {}", "This is a test. {}", "Thinking...\n{}", "<b>Thinking:</b>{}",
     "{}<br><b>Answer:</b> ", "Thought: It names it.\n{}\nSo"],
)  # fmt: skip
def test_an_object_of_a_document_of_the_task_or_of_thinking_is_none(mode: str, text: str) -> None:
    with pytest.raises(NoAnswer):
        read(mode, text)


def test_scores_of_both_signs_leave_both_winners_open() -> None:
    mixed = '{"reasoning": "x", "scores": {"Topic": 0.8, "Detail": -0.4}}'
    for text in (
        mixed,
        f"{mixed}\nDocument A is better.",
        f"{mixed}\nDocument B is better.",
        f"{mixed}\nFinal score: 0.2",
    ):
        assert read_criteria(saying(text), CRITERIA).preference_of_first == pytest.approx(0.6)
    with pytest.raises(NoAnswer):
        read_criteria(saying(f"{mixed}\nFinal score: 0.9"), CRITERIA)


@pytest.mark.parametrize(
    "reasoning",
    [
        "...",
        "…",
        "TODO",
        "your two sentences here",
        "Two or three short sentences that weigh both documents.",
        "[your reasoning]",
    ],
)
def test_a_repeated_format_is_no_answer(reasoning: str) -> None:
    echo = f'{{"reasoning": "{reasoning}", "score": 0}}'
    with pytest.raises(NoAnswer):
        read_score(saying(echo))
    assert read_score(saying(f"Format: {echo}\nFinal answer: {MODES['score'][1]}")).preference_of_first == 0.95


def test_a_description_of_the_fields_is_no_answer() -> None:
    schema = '{"reasoning": {"type": "string"}, "score": {"type": "number"}}'
    assert read_score(saying(f"{schema}\n{MODES['score'][1]}")).preference_of_first == 0.95
    with pytest.raises(NoAnswer):
        read_score(saying(schema))


@pytest.mark.parametrize(
    "field",
    ['"ganador": "B"', '"gewinner": "B"', '"胜者": "B"', '"verdict": "Second document is better"', '"relevance": {"A": 0.1, "B": 0.9}', '"scores": {"A": 0, "B": 1}',
     '"a_is_better": false', '"is_a_better": false', '"b_wins": true', '"both_irrelevant": true', '"neither_relevant": true'],
)  # fmt: skip
def test_a_field_of_any_form_that_names_the_other_document_contradicts(field: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f'{{"score": 0.9, {field}}}'))
    agreeing = (
        field.replace('"B"', '"A"').replace("Second", "First").replace('"A": 0.1, "A": 0.9', '"A": 0.9, "B": 0.1')
    )
    if agreeing != field and "scores" not in field:
        assert read_score(saying(f'{{"score": 0.9, {agreeing}}}')).preference_of_first == 0.95


TAGS = [("<सोच>", "</सोच>"), ("<ความคิด>", "</ความคิด>"), ("﹤think﹥", "﹤/think﹥"), ("≪think≫", "≪/think≫"), ("❮think❯", "❮/think❯"), ("⟦think⟧", "⟦/think⟧"),
        ("<think>", "<\\/think>"), ("<musing>", "<\\/musing>"), ("[[THINK]]", "[[/THINK]]")]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), TAGS)
def test_tags_of_any_script_bracket_and_escape_end_thinking(opening: str, closing: str) -> None:
    good, bad = '{"score": -0.9}', '{"score": 0.9}'
    for text in (f"{opening}It names it.\n{bad}{closing}\n{good}", f"It names it.\n{bad}{closing}\n{good}"):
        assert read_score(saying(text)).preference_of_first == pytest.approx(0.05)
    for text in (f"{opening}It names it.\n{bad}\nMore.", f"{bad}{closing}"):
        with pytest.raises(NoAnswer):
            read_score(saying(text))
    assert read_votes([saying(f"{opening}A{closing}\nB")], votes=1).preference_of_first == 0.0


def test_a_role_that_only_begins_like_the_assistants_is_another() -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f"<|im_start|>assistant_thoughts\nIt names it.\n{MODES['score'][1]}"))


def test_a_label_whose_listed_value_is_not_that_of_its_token_is_none() -> None:
    rows = [{"token": "A", "logprob": -2.0}, {"token": "B", "logprob": -0.3}]
    body = saying("A")
    body["choices"][0]["logprobs"] = {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": rows}]}
    with pytest.raises(NoAnswer):
        read_logprobs(body, least_mass=0.8, missing="fail")


@pytest.mark.parametrize("text", [r"\boxed{\mathrm{B}}", r"The answer is $\boxed{\textbf{B}}$", r"\boxed{\text{B}}"])
def test_a_boxed_letter_is_a_vote_in_any_style(text: str) -> None:
    assert read_votes([saying(text)], votes=1).preference_of_first == 0.0
