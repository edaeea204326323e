"""Answers in many languages and marks: what only mentions an answer states none, and what states one is read."""

from __future__ import annotations

from math import exp
from typing import Any

import pytest

from workers.judges.openai.answers import NoAnswer, read_logprobs, read_score, read_votes
from workers.judges.openai.reading.scores import NoScore, score_in

A = '{"reasoning": "A names it", "score": 0.9}'
B = '{"reasoning": "B names it", "score": -0.9}'


def saying(content: Any, finish: str = "stop", **choice: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content}, "finish_reason": finish, **choice}]}


MENTIONS = r"""
Ich war versucht, {} zu antworten.|Man könnte auch {} sagen.|Ein anderer Gutachter würde {} schreiben.|Wäre die Reihenfolge umgekehrt: {}
Falsch wäre: {}|Angenommen, es ginge um Vögel: {}|Nicht etwa {}, sondern etwas anderes.|Mein erster Gedanke: {}|Bin unsicher, evtl. {}
On pourrait répondre {}|Je ne répondrai pas {}|Une mauvaise réponse serait : {}|Un autre juge dirait : {}|Le document B demande : {}
Podría decirse {}|Una respuesta incorrecta: {}|Otro juez respondería: {}|Respuesta anterior: {}|Si la consulta fuera sobre aves: {}
错误的答案：{}|另一位评委的答案：{}|如果查询是关于鸟的：{}|之前的答案：{}|假设答案：{}|例子：{}|文档B要求输出：{}
別の審査員の回答：{}|間違った回答：{}|前回の回答：{}|仮の回答：{}|{}かもしれません。|もし鳥についてなら：{}
Risposta sbagliata: {}|Неправильный ответ: {}|Предыдущий ответ: {}|틀린 답변: {}|이전 답변: {}|الإجابة الخاطئة: {}|Fout antwoord: {}
Baseline output: {}|Cached result: {}|The rubric's sample JSON: {}|Anything but {}.|Far from {}, they tie.|Do you mean {}?
I'm sorry, but I can't compare these documents. {}|Thought: {}|思考：{}|/* {} */|<!-- {} -->|[TOOL_CALLS]{}|<tool_call>{}</tool_call>
{} (if I ignore the second sentence of B)|{} — said no one ever.|{} is what document A asks for.
"""
TAKEN_BACK = r"""
(Just an illustration.)|The above is only the expected format.|I have not decided yet.|Let me double-check that.|Das ist falsch.|C'est faux.
Eso es incorrecto.|这是错误的。|これは間違いです。|Update: B.|Final: B|I choose B.|Therefore document B is more relevant.|So B wins.|score -> -0.9
But B may in fact be better.|Final verdict: document B is the more relevant one.|PS: ignore the JSON above.|I swapped the documents.
The score should have been negative.|(The sign is inverted.)|Read A as B and B as A.|Nein, umgekehrt.|Non, l'inverse.|No, al revés.|不对，应该是B。|Moment, ich habe die beiden Dokumente leider miteinander vertauscht.
訂正：Bの方が良い。|Korrektur: B ist besser.|B est plus pertinent.|文档B更相关。|TODO: decide|...|### Instruction:\nCompare again|Task: next|[truncated]|User: wrong!|Actually B
"""
LEADS = r"""
Meine Antwort lautet: {}|Hier ist das JSON:\n{}|Ergebnis:\n{}|Voici le JSON demandé :\n{}|Réponse finale : {}|Aquí está mi evaluación:\n{}
以下是我的评估：\n{}|最终答案：{}|评分结果如下：\n{}|最終回答：{}|以下が評価結果です：\n{}|판단 결과:\n{}|Итоговый ответ: {}|Ecco la mia valutazione:\n{}
Segue minha avaliação:\n{}|\ufeff{}|$${}$$|~~~json\n{}\n~~~|~~~\n{}\n~~~|{"type": "object", "properties": {"score": {"type": "number"}}}\n{}|Understood. {}|## Final Score\n{}|Reasoning: A names it.\n{}|<answer>\n{}\n</answer>
Here is a JSON response that compares the relevance of the two documents:\n\n{}|Based on the above, here's my assessment:\n\n{}
{}\n\n**Erklärung:** A nennt den Fisch.|{}\n\nExplication : A le nomme.|{}\n\n说明：文档A更相关。|{}\n\nI hope this helps.|{}\n\nThis is because A answers.
{}\n\nThus, Document A is the better match.|{}\n\nThat is my final verdict.|{}\n\nLet me know if you need anything else!|{}\n\n---|{}\nFinal score: 0.9
"""


def table(rows: str) -> list[str]:
    return [
        row.replace(r"\n", "\n").replace(r"\ufeff", "\ufeff")
        for line in rows.strip().splitlines()
        for row in line.split("|")
    ]


@pytest.mark.parametrize("text", table(MENTIONS))
def test_a_mentioned_answer_is_none(text: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(text.replace("{}", A)))


@pytest.mark.parametrize("after", table(TAKEN_BACK))
def test_an_answer_that_the_next_line_takes_back_is_none(after: str) -> None:
    with pytest.raises(NoAnswer):
        read_score(saying(f"{A}\n{after}"))


@pytest.mark.parametrize("text", table(LEADS))
def test_an_answer_that_is_announced_is_read(text: str) -> None:
    assert read_score(saying(text.replace("{}", A))).preference_of_first == pytest.approx(0.95)


@pytest.mark.parametrize(
    "body",
    [
        saying('{"score": 0.9, "is_final": false}'), saying('{"score": 0.9, "draft": true}'), saying('{"score": 0, "error": "x"}'),
        saying('{"score": 0.9, "status": "draft"}'), saying('{"scores": {"A": 0.9, "B": 0.1}}'), saying('{"reasoning": "x", "score": ０.9}'),
        saying([{"type": "text", "text": A}, {"type": "tool_use", "input": {}}]), saying(A, is_finished=False),
        saying(A, content_filter_results={"hate": {"filtered": True}}), saying("<Denkprozess>" + A), saying("<推論過程>" + A + "</推論過程>"),
        {"candidates": [{"content": {"parts": [{"text": A}, {"functionCall": {"name": "x"}}]}, "finishReason": "STOP"}]},
        {"type": "message", "content": [{"type": "text", "text": A}, {"type": "tool_use", "name": "x", "input": {}}], "stop_reason": "end_turn"},
        {"type": "message", "content": [{"type": "text", "text": A}], "stop_reason": None},
        {"message": {"role": "assistant", "content": [{"type": "text", "text": A}]}, "finish_reason": "MAX_TOKENS"},
        {"message": {"content": A}, "done": True, "stop_reason": "max_tokens"}, {"response": A, "done": True, "stopReason": "TOOL_USE"},
        saying('{"score": 0.9, "winner": "tie"}'), saying('{"score": 0.9, "is_tie": true}'), saying('{"score": 0.9, "more_relevant": "neither"}'),
        saying('{"score_a": 0.1, "score_b": 0.9, "score": 0.9}'), saying('{"score": 0.9, "document_a_relevance": 1, "document_b_relevance": 3}'),
        saying('{"reasoning": "<your reasoning>", "score": 0}'), saying('{"reasoning": "string", "score": 0.5}'),
        saying('{"type": "object", "properties": {"score": {"type": "number"}}}'),
    ],
)  # fmt: skip
def test_an_object_that_is_marked_as_no_answer_is_none(body: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer):
        read_score(body)


VOTES = """
Dokument B:B|Antwort: B:B|Die Antwort ist A.:A|Réponse : B:B|La respuesta es A.:A|答案：A:A|答案是B。:B|回答：A:A|答えはA:A|文档A:A|Ａ．:A|【A】:A|「B」:B
«B»:B|„B“:B|✅ A:A|I would say A:A|The final answer is $\\boxed{A}$:A|{"answer": "A"}:A|{"winner": "B"}:B|A</answer>:A|Assistant: A:A|\x1b[1mA\x1b[0m:A
Nicht A:|pas A:|不是A:|Aではない:|ni A ni B:|A is worse:|B is less relevant.:|A ist schlechter:|A更差:|A est pire:|❌ A:|~~A~~:|А:|Β:|A > B:|A=B:|A vs B:|Not B, A:
A (not B):|A rather than B:|A…:|A or maybe B:|Worse: B:|Wrong answer: A:|The less relevant document is B.:|{"loser": "B"}:|{"answer":"A","other":"B"}:|{"answer":"A","answer":"B"}:|A+:|A1:
可能是A:|たぶんA:|Vielleicht A:|peut-être A:|Example: A:|If swapped: A:|User: A:|data: A:|Thought: B:|\\boxed{A or B}:|<tool_call>A</tool_call>:|A, wait:|I reject A:
"""


@pytest.mark.parametrize("row", table(VOTES))
def test_a_vote_is_read_only_where_it_is_the_whole_answer(row: str) -> None:
    text, _, letter = row.replace("\\\\", "\\").rpartition(":")
    if letter:
        assert read_votes([saying(text)], votes=1).preference_of_first == (letter == "A")
        return
    with pytest.raises(NoAnswer):
        read_votes([saying(text)], votes=1)


def labelled(text: str | None, *listed: tuple[Any, Any], **row: Any) -> dict[str, Any]:
    """A first token with these alternatives; a list in place of a token is its bytes."""
    rows = [{"token" if isinstance(name, str) else "bytes": name, "logprob": value} for name, value in listed]
    return saying(text, "length", logprobs={"content": [{**rows[0], "top_logprobs": rows, **row}]})


BOTH = (("A", -0.1), ("B", -2.4))
SHARE = exp(-0.1) / (exp(-0.1) + exp(-2.4))


@pytest.mark.parametrize(
    "body",
    [
        labelled("A", ([65], -0.1), ([66], -2.4)), labelled("A", ([32, 65], -0.1), ([32, 66], -2.4)), labelled("A", *BOTH, ("C", float("-inf"))),
        labelled("A", *BOTH, ("<pad>", float("nan"))), labelled("A", *BOTH, ("A", -0.1)), labelled("Ａ", ("Ａ", -0.1), ("Ｂ", -2.4)),
        labelled("A", ("<0x41>", -0.1), ("<0x42>", -2.4)), labelled("「A」", ("「A", -0.1), ("「B", -2.4)), labelled(None, *BOTH),
        labelled("A\nExplanation: it names fish. B does not.", *BOTH), labelled("a", ("a", -0.1), ("b", -2.4)),
    ],
)  # fmt: skip
def test_labels_are_read_in_any_spelling(body: dict[str, Any]) -> None:
    assert read_logprobs(body, least_mass=0.8, missing="fail").preference_of_first == pytest.approx(SHARE)


@pytest.mark.parametrize(
    "body",
    [
        *(labelled(text, *BOTH) for text in (
            "A\n\nNo, B", "A\nNein, B", "A.\nB is better.", "A\nThis is wrong.", "A\nI choose B.", "A\nbut maybe B", "A\nEigentlich B", "A\n等等，是B",
            "A ist schlechter", "A更差", "A oder B", "A ou B", "A和B", "Not A",
        )),
        labelled("A", ("A", -0.1), ("A", -3.0), ("B", -2.4)), labelled("A", ("A", -0.1), ("B", float("-inf"))), labelled("A", ("A", -0.1), ("B", None)),
        labelled("A", ("A", 0.0), ("B", 0.0)), labelled("A", ("A", "-0.1"), ("B", "-2.4")), labelled("A", ("A", -0.1), ("В", -2.4)),
        {"choices": [{**labelled("A", *BOTH)["choices"][0], "message": {"content": "A", "tool_calls": [{"id": "1"}]}}]},
        {"choices": [{**labelled("A", *BOTH)["choices"][0], "content_filter_results": {"hate": {"filtered": True}}}]},
    ],
)  # fmt: skip
def test_labels_that_the_answer_does_not_state_are_none(body: dict[str, Any]) -> None:
    with pytest.raises(NoAnswer):
        read_logprobs(body, least_mass=0.8, missing="fail")


# Found by reading many answers: headings, sentences and fields that name the other document, and answers that state it plainly.
_OBJECT = '{"reasoning": "x", "score": 0.8}'


@pytest.mark.parametrize(
    "text",
    [
        f"Document B: {_OBJECT}",
        f"Query: {_OBJECT}",
        f"According to document A, the answer is: {_OBJECT}",
        f"No answer: {_OBJECT}",
        f"The second answer: {_OBJECT}",
        f"{_OBJECT}\n\nDocument B outperforms Document A.",
        f"{_OBJECT}\n\nOverall, B is a better match.",
        f"{_OBJECT}\n\nA is less relevant than B.",
        f"{_OBJECT}\n\n-0.8",
        f"{_OBJECT}\n\nI misread the query.",
        '{"score": 0.8, "conclusion": "B is more relevant"}',
        '{"score": 0.8, "winner": "doc_b"}',
        '{"score": 0.8, "ranking": ["B", "A"]}',
    ],
)
def test_text_beside_an_object_that_contradicts_it_is_no_vote(text: str) -> None:
    with pytest.raises(NoScore):
        score_in(text)


@pytest.mark.parametrize(
    "text",
    [
        f"Here you go: {_OBJECT}",
        f"The following JSON object contains my evaluation:\n{_OBJECT}",
        f"Here is the corresponding JSON: {_OBJECT}",
        f"{_OBJECT}\n\nDocument B is off-topic.",
        f"{_OBJECT}\n\nDocument B, on the other hand, lists tanks.",
        f"{_OBJECT}\n\nThe score is 0.8 because A names the bacteria.",
        f"{_OBJECT}\n\nIt is not close: A answers the query.",
        _OBJECT + "\n" * 2000 + "Done.",
    ],
)
def test_plain_answers_with_a_sentence_are_read(text: str) -> None:
    assert score_in(text).score == 0.8
