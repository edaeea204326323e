"""Thinking under tags, fields and headings that no list names is never an answer, and the answer after it is read."""

from __future__ import annotations

from typing import Any

import pytest

from workers.judges.openai.answers import NoAnswer, read_score, read_votes
from workers.judges.openai.reading.failures import Cause

A = '{"reasoning": "A names it", "score": 0.9}'
B = '{"reasoning": "B names it", "score": -0.9}'


def saying(content: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": content, **more}, "finish_reason": "stop"}]}


def refuses(body: Any) -> NoAnswer:
    with pytest.raises(NoAnswer) as caught:
        read_score(body)
    return caught.value


SECTIONS = [
    ("<brainstorm>", "</brainstorm>"), ("<notes>", "</notes>"), ("<x9>", "</x9>"), ("<_>", "</_>"), ("<brouillon>", "</brouillon>"),
    ("<草稿>", "</草稿>"), ("<div class='inner'>", "</div>\n<hr>"), ("&lt;musing&gt;", "&lt;/musing&gt;"), ("\\u003cmusing\\u003e", "\\u003c/musing\\u003e"),
    ("<|begin_musing|>", "<|end_musing|>"), ("<|tool|>", "<|/tool|>"), ("[MUSING]", "[/MUSING]"), ("[[musing]]", "[[/musing]]"),
    ("{{musing}}", "{{/musing}}"), ("{% musing %}", "{% endmusing %}"), ("%think%", "%/think%"), ("@@musing@@", "@@/musing@@"),
    ("::musing::", "::end musing::"), ("\\begin{musing}", "\\end{musing}"), ("--- working ---\n", "\n--- end of working ---\n"),
    ("-----BEGIN NOTES-----\n", "\n-----END NOTES-----\n"), ("BEGIN MUSING\n", "\nEND MUSING\n"), ("*musing*\n", "\n*done musing*\n"),
    ("\x00<musing>", "</musing>"), ("<mus\x00ing>", "</musing>"), ("<!-- ", " -->"), ("/* ", " */"),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "closing"), SECTIONS, ids=[opening.strip() for opening, _ in SECTIONS])
def test_what_stands_in_a_section_of_any_name_is_no_answer(opening: str, closing: str) -> None:
    is_heading = opening.startswith("*")  # a heading in italics may stand over the whole reply
    for text in (f"{opening}{A}{closing}", f"{opening}{A}", f"{opening}They differ. {A} They do.")[
        : 1 if is_heading else 3
    ]:
        refuses(saying(text))
        with pytest.raises(NoAnswer):
            read_votes([saying(text.replace(A, "A"))], votes=1)
    if "class" not in opening:  # the closing of plain markup ends no unknown section
        assert read_score(saying(f"{opening}{A}{closing}\n{B}")).preference_of_first == pytest.approx(0.05)
        assert read_score(saying(f"{A}{closing}\n{B}")).preference_of_first == pytest.approx(0.05)
        refuses(saying(f"{A}{closing}"))


@pytest.mark.parametrize(
    "text",
    ["(* {} *)", "{# {} #}", "<# {} #>", "```notes\n{}\n```", "// {}", "\x1b[2m{}", "### Analysis\n{}", "Reasoning:\n{}", "=== REASONING ===\n{}",
     "Okay. <musing>{}", "Sure: <plan>{}", "<details><summary>Thoughts</summary>{}</details>"],
)  # fmt: skip
def test_comments_labels_and_headings_of_thinking_hold_no_answer(text: str) -> None:
    refuses(saying(text.replace("{}", A)))
    with pytest.raises(NoAnswer):
        read_votes([saying(text.replace("{}", "A"))], votes=1)


@pytest.mark.parametrize(
    "after",
    ["\nAnswer:", "\n### Final answer", "\n**Verdict**", "\n=== ANSWER ===", "\n<answer>", "\n<answer></answer>", "\n<answer", " <|", "\n```json\n",
     "\n(to be continued)", "\n[Final answer to follow]", "\nI will now give the final JSON."],
)  # fmt: skip
def test_an_object_before_an_answer_that_does_not_come_is_none(after: str) -> None:
    assert refuses(saying(A + after)).cause is Cause.CUT_OFF
    with pytest.raises(NoAnswer):
        read_votes([saying("A" + after)], votes=1)


@pytest.mark.parametrize(
    "text",
    ["\x00{}", "\x01\x02{}", "{}\x00", "<![CDATA[{}]]>", "<answer><![CDATA[{}]]></answer>", "<?xml version='1.0'?>\n<answer>{}</answer>",
     '<pre><code class="language-json">{}</code></pre>', "{}\nEnd of answer.", "{}\n[END OF RESPONSE]", "The documents are about <table> tags.\n\n{}",
     "**Analysis**\nA names it. B does not.\n\n{}", "[Document A] names it.\n\n{}", "{}\n\nWould you like more: just ask!"],
)  # fmt: skip
def test_wrappers_and_mentions_keep_the_answer(text: str) -> None:
    assert read_score(saying(text.replace("{}", A))).preference_of_first == pytest.approx(0.95)


MARKS: list[dict[str, Any]] = [
    {"role": "planner"}, {"purpose": "reasoning"}, {"visibility": "hidden"}, {"internal": True}, {"title": "Notes"}, {"subtype": "x"},
    {"metadata": {"type": "thinking"}}, {"type": "brainstorm"}, {"kind": "musing"}, {"stage": "draft"}, {"is_final": False}, {"audience": ["system"]},
]  # fmt: skip


@pytest.mark.parametrize("mark", MARKS, ids=str)
def test_a_mark_that_is_not_known_to_be_final_is_thinking(mark: dict[str, Any]) -> None:
    refuses(saying([{"text": A, **mark}]))
    assert read_score(saying([{"text": A, **mark}, {"text": B}])).preference_of_first == pytest.approx(0.05)
    if "metadata" not in mark:
        refuses(saying(A, **mark))
        refuses(
            {"choices": [{**saying(A)["choices"][0], **{name: each for name, each in mark.items() if name != "role"}}]}
            if "role" not in mark
            else saying(A, **mark)
        )
    final = {
        "type": "text",
        "audience": ["user"],
        "phase": "final_answer",
        "cached": True,
        "is_final": True,
        "thoughtSignature": "x",
    }
    assert read_score(saying([{"text": A, **final}])).preference_of_first == pytest.approx(0.95)


@pytest.mark.parametrize(
    "state",
    [{"status": "in_progress"}, {"done": False}, {"truncated": True}, {"incomplete": True}, {"status": "failed"}],
)
def test_a_body_that_is_not_finished_holds_no_answer(state: dict[str, Any]) -> None:
    refuses({**saying(A), **state})
    assert read_score({**saying(A), "status": "completed", "done": True}).preference_of_first == pytest.approx(0.95)


def native(ending: str) -> dict[str, Any]:
    """Bodies in which servers say the same, each with its own word for the end."""
    return {
        "Bedrock Converse": {"output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": A, "signature": "x"}}}, {"text": B}]}}, "stopReason": ending, "usage": {}},
        "Titan": {"inputTextTokenCount": 5, "results": [{"tokenCount": 6, "outputText": B, "completionReason": ending}]},
        "Llama": {"generation": B, "prompt_token_count": 1, "generation_token_count": 2, "stop_reason": ending},
        "Mistral": {"outputs": [{"text": f"<think>{A}</think>{B}", "stop_reason": ending}]},
        "Cohere": {"generations": [{"finish_reason": ending, "id": "1", "text": B}], "prompt": A},
        "AI21": {"id": 1, "completions": [{"data": {"text": B, "tokens": []}, "finishReason": {"reason": ending}}]},
        "Claude's completions": {"completion": f" {B}", "stop_reason": ending, "type": "completion"},
        "Watsonx": {"results": [{"generated_text": B, "stop_reason": ending}]},
        "DashScope": {"output": {"choices": [{"message": {"role": "assistant", "content": B, "reasoning_content": A}, "finish_reason": ending}]}},
        "a gateway's envelope": {"data": {"choices": [{"message": {"content": B}, "finish_reason": ending}]}},
    }  # fmt: skip


@pytest.mark.parametrize("server", native(""))
def test_a_native_body_is_read_where_one_path_leads_to_a_text_and_its_end(server: str) -> None:
    assert read_score(native("stop")[server]).preference_of_first == pytest.approx(0.05)
    assert refuses(native("max_tokens")[server]).cause is Cause.CUT_OFF
    assert refuses(native("guardrail_intervened")[server]).cause is Cause.FILTERED
    assert refuses(native("null")[server]).cause is Cause.UNKNOWN_ENDING


@pytest.mark.parametrize(
    "body",
    [
        {"predictions": [B]},
        {"text_output": B},
        {"outputs": [{"text": A, "output": B, "stop_reason": "stop"}]},
        {"results": [[B]]},
    ],
)
def test_a_body_without_a_stated_end_or_with_two_texts_is_none(body: dict[str, Any]) -> None:
    assert refuses(body).cause is Cause.NO_CHOICES
