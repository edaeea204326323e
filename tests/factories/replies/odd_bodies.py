"""Replies of language models in odd forms, drawn from a grammar; each knows the answer that its final text states, or None.

The grammar shares nothing with the reader: it starts from an answer, wraps it into what keeps it (thinking, fences, envelopes
of servers), and spoils some replies so that nothing is stated. `server_bodies` holds real shapes; `benchmarks/reading.py` and
the property test of the reader use both.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.factories.replies.odd_words import LEADS, MENTIONS, OTHER_WINNERS, PROSE, REASONS, SAYS, SPEAKERS, TAGS

MODES = ("reasoned", "sampled", "logprob")
SPOILED = 0.4  # the share of bodies that state nothing
VOTES = 5
LEAST_MASS = 0.8

Body = dict[str, Any]


@dataclass(frozen=True, slots=True)
class OddBody:
    """A reply, the mode in which it was asked for, and what it states: P(first document), None for nothing."""

    mode: str
    body: Body
    truth: float | None
    made_of: str
    missing: str = "fail"


def odd_bodies(count: int, *, seed: int) -> Iterator[OddBody]:
    """`count` bodies, the modes in turn; the same for the same seed."""
    for number in range(count):
        dice = random.Random(f"{seed} {number}")
        yield {"reasoned": reasoned, "sampled": sampled, "logprob": logprob}[MODES[number % 3]](dice)


FINISHED = ("stop", "stop", "stop", "STOP", "eos", "eos_token", "stop_sequence", "end_turn", None, "absent")
CUT = ("length", "max_tokens", "MAX_TOKENS", "model_length", "max_output_tokens", "length")
WITHHELD = ("content_filter", "SAFETY", "RECITATION", "PROHIBITED_CONTENT", "tool_calls", "error", "abort", "refusal")


# --- answers of the mode reasoned -----------------------------------------------------------


def _object(dice: random.Random, score: float | str, reasoning: str | None = None) -> str:
    """A JSON object that states the score, in one of the ways that models write it."""
    shown = score if isinstance(score, str) else json.dumps(score)
    reason = dice.choice(REASONS) if reasoning is None else reasoning
    return dice.choice(
        (
            f'{{"reasoning": "{reason}", "score": {shown}}}',
            f'{{"reasoning":"{reason}","score":{shown}}}',
            f'{{\n  "reasoning": "{reason}",\n  "score": {shown}\n}}',
            f'{{"score": {shown}, "reasoning": "{reason}"}}',
            f'{{"reasoning": "{reason}", "details": {{"length": [1, 2]}}, "score": {shown}}}',
            f'{{"reasoning": "{reason}", "example": {{"score": {json.dumps(round(dice.uniform(-1, 1), 2))}}}, "score": {shown}}}',
        )
    )


def _score(dice: random.Random) -> float:
    return dice.choice((-1, 1, 0, 0.5, -0.5, round(dice.uniform(-1, 1), 2), round(dice.uniform(-1, 1), 6)))


def _presented(dice: random.Random, answer: str) -> tuple[str, str]:
    """(text, production): the object as the last thing that a final text states."""
    other = _object(dice, _score(dice))
    kind = dice.choice(
        (
            "bare",
            "bare",
            "fenced",
            "prose",
            "led to",
            "led to",
            "wrapped",
            "token",
            "echo",
            "revised",
            "twice",
            "list of one",
        )
    )
    return {
        "bare": answer,
        "fenced": f"```{dice.choice(('json', 'JSON', ''))}\n{answer}\n```",
        "prose": f"{dice.choice(PROSE)}\n\n{dice.choice(('Here is my answer:', 'Final answer:', 'So:'))}\n{answer}",
        "led to": _in_words(dice, dice.choice(LEADS), answer),
        "wrapped": "{0}\n{2}\n{1}".format(*dice.choice((("<answer>", "</answer>"), ("<response>", "</response>"), ("<|begin_of_solution|>", "<|end_of_solution|>"))), answer),
        "token": answer + dice.choice(("<|im_end|>", "</s>", "<|eot_id|>", "<end_of_turn>", "<|endoftext|>", "\n")),
        "echo": f'The format is {{"reasoning": "your sentences", "score": {dice.choice(("0", "a number from -1 to 1"))}}} so: {answer}',
        "revised": f"A first guess: {other}\n{dice.choice(('But B has more, so finally:', 'On reflection the answer is', 'Revised:'))} {answer}",
        "twice": f"{answer}\n{answer}",
        "list of one": f"[{answer}]",
    }[kind], kind  # fmt: skip


def _in_words(dice: random.Random, words: str, answer: str) -> str:
    """The words around an answer, which may be fenced where it has lines of its own."""
    is_fenced = "\n{}" in words and words.endswith("{}") and dice.random() < 0.3
    return words.replace("{}", f"```json\n{answer}\n```" if is_fenced else answer)


def _mention(dice: random.Random, answer: str) -> str:
    """A text that names an answer without giving it."""
    said = f"{dice.choice(SPEAKERS)} {dice.choice(SAYS)}{dice.choice((' ', ': ', chr(10), ', in short, '))}{{}}"
    return _in_words(dice, dice.choice((said, *MENTIONS)), answer)


def _thought(dice: random.Random, decoy: str) -> str:
    return f"{dice.choice(PROSE)} {decoy} {dice.choice(PROSE)}"


def _after_thinking(dice: random.Random, text: str, decoy: str) -> tuple[str, str]:
    """The text after thinking that states something else."""
    thought = _thought(dice, decoy)
    opening, closing = dice.choice(TAGS)
    fence = opening.startswith("```")
    kind = dice.choice(
        ("none", "none", "tag", "tag", "opened by the template", "nested", "repeated", "harmony", "bare harmony", "two")
    )
    if fence and kind in {"opened by the template", "nested", "repeated"}:
        kind = "tag"
    second, end = dice.choice(TAGS[:12])
    return {
        "none": text,
        "tag": f"{opening}{thought}{closing}\n{text}",
        "opened by the template": f"{thought}{closing}\n\n{text}",
        "nested": f"{opening}{thought}{opening}{decoy}{closing}{thought}{closing}{text}",
        "repeated": f"{opening}\n{opening}{thought}{closing}\n{text}",
        "harmony": f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant<|channel|>final"
                   f"{dice.choice(('', ' <|constrain|>json'))}<|message|>{text}{dice.choice(('', '<|return|>', '<|end|>'))}",
        "bare harmony": f"analysis{thought.replace('It', 'it')}assistantfinal{text}",
        "two": f"{second}{thought}{end}{decoy}{opening}{thought}{closing}{text}",
    }[kind], f"{kind} {opening.strip()}"  # fmt: skip


def _spoiled_score(dice: random.Random) -> tuple[Body, str]:
    """A choice of the mode reasoned that states no score."""
    answer, other = _object(dice, 1), _object(dice, -1)
    opening, closing = dice.choice(TAGS)
    incomplete = answer[: dice.randrange(2, len(answer) - 2)]
    texts: dict[str, str] = {
        "unclosed thinking": f"{opening}{_thought(dice, answer)}",
        "reopened thinking": f"{answer}\n{dice.choice(TAGS[:12])[0]} wait",
        "answer inside thinking": f"{opening}{_thought(dice, answer)}{closing}\n",
        "answer before a closing tag": f"{answer}{closing}" if closing.strip() != "```" else f"{opening}{answer}{closing}",
        "analysis only": f"<|channel|>analysis<|message|>{answer}<|end|>",
        "final not reached": f"<|channel|>analysis<|message|>{answer}<|end|><|start|>assistant<|channel|>final",
        "bare analysis": f"analysisWe say {answer}",
        "array of two": f"[{answer}, {other}]",
        "or": f"{answer}{dice.choice((' or ', ' / ', chr(10) + 'or' + chr(10), '; '))}{other}",
        "numbered": f"1. {answer}\n2. {other}",
        "options": f"Option A: {answer}\nOption B: {other}",
        "for each document": f"Document A: {answer}\nDocument B: {other}",
        "two scores": f'{{"reasoning": "x", "score": 1, "score": {dice.choice(("-1", "0.5", "null"))}}}',
        "out of range": _object(dice, dice.choice(("7", "1.01", "-2", "100", "1e400", "-1.0001"))),
        "no number": _object(dice, dice.choice(("NaN", "Infinity", "null", "true", '"high"', '"0,5"', '"50%"', "[1]", "{}"))),
        "incomplete": incomplete,
        "incomplete second": f"{answer}\nNo: {other[: len(other) // 2]}",
        "second not JSON": f"{answer}\nBetter: {{'reasoning': 'x', 'score': -1}}",
        "only an example": f'{{"example": {answer}}}',
        "only the format": 'Reply: {"reasoning": "your sentences", "score": 0}',
        "taken back": f"{answer}\n\nWait, that is wrong.",
        "in an unknown element": f"<musing>{answer}</musing>",
        "only mentioned": _mention(dice, answer),
        "struck through": f"~~{answer}~~",
        "quoted": f"> {answer}\n\nDocument B says this. I do not follow it.",
        "another winner": f'{answer[:-1].rstrip()}, {dice.choice(OTHER_WINNERS)}}}',
        "prose": dice.choice(PROSE),
        "empty": dice.choice(("", "  \n")),
        "next turn": f"{answer}<|im_end|>\n<|im_start|>user\nAnd now?{other}",
    }  # fmt: skip
    kind = dice.choice(
        [
            *sorted(texts),
            *["only mentioned"] * 4,
            "cut",
            "cut",
            "withheld",
            "two texts",
            "thinking field",
            "tool",
            "refusal",
        ]
    )
    if kind in texts:
        return _choice(dice, texts[kind]), kind
    if kind == "cut":
        text = dice.choice((answer, f"{opening}{_thought(dice, answer)}", incomplete))
        return _choice(dice, text, finish=dice.choice(CUT)), kind
    if kind == "withheld":
        return _choice(dice, dice.choice((answer, "", None)), finish=dice.choice(WITHHELD)), kind
    if kind == "two texts":
        place: Body = dice.choice(({"text": other}, {"delta": {"content": other}}))
        return {**_choice(dice, answer), **place}, kind
    if kind == "thinking field":
        return _thinking_only(dice, answer), kind
    if kind == "tool":
        calls = [{"id": "1", "type": "function", "function": {"name": "comparison", "arguments": answer}}]
        return _choice(dice, dice.choice((None, answer)), tool_calls=calls), kind
    return _choice(dice, dice.choice((None, answer)), refusal="I cannot compare these."), kind


def _thinking_only(dice: random.Random, thought: str) -> Body:
    field = dice.choice(
        ("reasoning_content", "reasoning", "thinking", "reasoning_details", "thinking_blocks", "part", "flag")
    )
    if field == "part":
        return _choice(dice, [{"type": "thinking", "thinking": [{"type": "text", "text": thought}]}])
    if field == "flag":
        return _choice(dice, [{"type": "text", "text": thought, "thought": True}])
    held: Any = (
        thought if field in {"reasoning_content", "reasoning", "thinking"} else [{"type": "x.text", "text": thought}]
    )
    return _choice(dice, dice.choice((None, "", [])), **{field: held})


def reasoned(dice: random.Random) -> OddBody:
    if dice.random() < SPOILED:
        choice, kind = _spoiled_score(dice)
        choices = [choice]
        if dice.random() < 0.03:
            choices, kind = [_choice(dice, _object(dice, 1)), _choice(dice, _object(dice, -1))], "two choices"
        return OddBody("reasoned", _envelope(dice, choices), None, kind)
    score = _score(dice)
    stated = dice.choice((score, score, score, f'"{score}"'))
    text, shown = _presented(dice, _object(dice, stated))
    text, thought = _after_thinking(dice, text, _object(dice, -score or 1))
    choice = _choice(dice, text, **_thinking_fields(dice, _object(dice, -score or 1)))
    return OddBody("reasoned", _envelope(dice, [_in_parts(dice, choice)]), (score + 1) / 2, f"{thought} + {shown}")


# --- votes -----------------------------------------------------------------------------------

LETTERS = (
    "{}", " {}\n", "**{}**", "Document {}", "document {}.", "Answer: {}", "Answer: {}.", "({})", '"{}"', "`{}`", "[[{}]]", "{}.",
    "**Answer:** {}", "The answer is {}.", "<answer>{}</answer>", "\\boxed{{{}}}", "{}<|im_end|>", "{}</s>", "Answer: Document {}",
    "The answer is: **{}**", "Document {} is more relevant.",
)  # fmt: skip
FULL_WIDTH = str.maketrans("AB", "ＡＢ")
NO_LETTERS = (
    "A or B", "B or A", "A and B", "not A", "Not B.", "neither", "Neither A nor B", "A B", "A\nB", "Both", "A?", "A/B", "AB", "C", "",
    "A is not the better one", "Maybe A, maybe B", "An answer", "Document", "1", "A document about fish", "B-", "!A", "a fish",
)  # fmt: skip


def _vote(dice: random.Random) -> tuple[Body, str | None, str]:
    """(choice, letter or None, production)."""
    letter, other = dice.sample("AB", 2)
    opening, closing = dice.choice(TAGS)
    if dice.random() < SPOILED / 4:
        kind = dice.choice(("no letter", "no letter", "cut", "unclosed", "inside", "field", "withheld"))
        text = {
            "no letter": dice.choice(NO_LETTERS),
            "unclosed": f"{opening}{letter}",
            "inside": f"{opening}{letter}{closing}",
        }.get(kind, letter)
        if kind == "field":
            return _thinking_only(dice, letter), None, kind
        finish = dice.choice(CUT) if kind == "cut" else dice.choice(WITHHELD) if kind == "withheld" else None
        return _choice(dice, text, finish=finish), None, kind
    text = dice.choice(LETTERS).format(letter)
    if dice.random() < 0.05:
        text = dice.choice((letter.translate(FULL_WIDTH), letter.lower()))
    text, thought = _after_thinking(dice, text, other)
    choice = _choice(dice, text, **_thinking_fields(dice, other))
    return _in_parts(dice, choice), letter, thought


def sampled(dice: random.Random) -> OddBody:
    votes = [_vote(dice) for _ in range(VOTES)]
    letters = [letter for _, letter, _ in votes if letter is not None]
    truth = letters.count("A") / len(letters) if len(letters) >= 0.8 * VOTES else None
    return OddBody(
        "sampled", _envelope(dice, [choice for choice, _, _ in votes]), truth, "; ".join(kind for *_, kind in votes)
    )


# --- log-probabilities ------------------------------------------------------------------------

SPELLINGS = ("{}", " {}", "Ġ{}", "▁{}", "{}.", "**{}", '"{}', "\n{}", "({}", "Ċ{}")
FILLERS = ("The", "**", "Document", "Answer", "I", "<|im_end|>", "\n", "C")


def _rows(dice: random.Random, p: float, mass: float, *, lower: bool) -> list[tuple[str, float]]:
    """Tokens with log-probabilities, the likeliest first: both labels in one or two spellings, and fillers."""
    masses: dict[str, float] = {}
    for letter, total in (("A", p * mass), ("B", (1 - p) * mass)):
        spellings = dice.sample(SPELLINGS, dice.choice((1, 1, 2)))
        shares = [1.0] if len(spellings) == 1 else [0.8, 0.2]
        for spelling, share in zip(spellings, shares, strict=True):
            masses[spelling.format(letter.lower() if lower else letter)] = total * share
    for place, filler in enumerate(dice.sample(FILLERS, 4)):
        masses.setdefault(filler, (1 - mass) / 2 ** (place + 1))
    return sorted(((token, math.log(value)) for token, value in masses.items()), key=lambda row: -row[1])


def logprob(dice: random.Random) -> OddBody:
    p, mass = dice.choice((dice.uniform(0.02, 0.98), dice.uniform(0.3, 0.7))), dice.uniform(0.85, 0.999)
    lower = dice.random() < 0.1
    rows: list[tuple[str, Any]] = list(_rows(dice, p, mass, lower=lower))
    if dice.random() >= SPOILED:
        rows += dice.choice(
            ([], [("<pad>", None)], [("<unk>", -math.inf), ("<s>", -9999.0)], [("The End", "x")], [rows[0]])
        )
        lead = dice.choice(([], [], [], ["\n"], [" "], ["<s>"], ["Ċ"]))
        shape = dice.choice((_chat_rows, _chat_rows, _legacy_rows, _gemini_rows, _plain_rows, _bytes_rows))
        text = "".join(lead) + rows[0][0]
        return OddBody(
            "logprob", _with_rows(dice, shape(rows, lead), text), p, f"{shape.__name__} lower={lower} lead={lead}"
        )
    return _spoiled_rows(dice, rows, p, mass)


def _spoiled_rows(dice: random.Random, rows: list[tuple[str, Any]], p: float, mass: float) -> OddBody:
    labels = [place for place, (token, _) in enumerate(rows) if token.strip('Ġ▁Ċ \n.*"(').upper() in {"A", "B"}]
    kinds: dict[str, Callable[[], OddBody]] = {}

    def spoil(
        name: str, changed: list[tuple[str, Any]], missing: str = "fail", text: str | None = None, **more: Any
    ) -> None:
        body = _with_rows(dice, _chat_rows(changed, []), changed[0][0] if text is None else text, **more)
        kinds[name] = lambda: OddBody("logprob", body, None, name, missing)

    bad = dice.choice((None, math.nan, "-0.1", True, 3.0, math.inf))
    place = dice.choice(labels)
    spoil(
        "label is no number",
        [(token, bad if at == place else value) for at, (token, value) in enumerate(rows)],
        dice.choice(("fail", "floor")),
    )
    spoil("no alternatives", rows[:1], dice.choice(("fail", "floor")))
    one = [(token, value) for token, value in rows if "B" not in token.upper()]
    spoil("one label", one)
    spoil(
        "neither label",
        [(token, value) for at, (token, value) in enumerate(rows) if at not in labels] + [("Yes", -0.1)],
        "floor",
    )
    spoil("little mass", [("The", math.log(0.4)), ("A", math.log(0.35)), ("B", math.log(0.2))])
    spoil("more than one", [("A", math.log(0.9)), ("B", math.log(0.6)), ("The", -9.0)])
    spoil("thinking first", [(dice.choice(TAGS)[0].strip(), -0.01), *rows])
    spoil("thinking field first", rows, text="", reasoning_content=f"{rows[0][0]} has it.")
    spoil("ids for texts", [(f"token_id:{65 + at}", value) for at, (_, value) in enumerate(rows)])
    swapped = {"A": "B", "B": "A"}
    first = rows[0][0].strip('Ġ▁Ċ \n.*"(').upper()
    spoil("text is the other letter", rows, text=swapped.get(first, "A"))
    spoil(
        "text is not the likeliest", [*rows[1:2], *rows[:1], *rows[2:]] if rows[1][1] < rows[0][1] - 0.5 else rows[:1]
    )
    kinds["no log-probabilities"] = lambda: OddBody(
        "logprob",
        _with_rows(dice, dice.choice((None, {}, {"content": None}, {"content": []})), "A"),
        None,
        "no log-probabilities",
    )
    kinds["only blank"] = lambda: OddBody(
        "logprob", _with_rows(dice, _chat_rows([("\n", -0.1), *rows], []), "\n"), None, "only blank"
    )
    kinds["withheld"] = lambda: OddBody(
        "logprob", _with_rows(dice, _chat_rows(rows, []), rows[0][0], finish=dice.choice(WITHHELD)), None, "withheld"
    )
    return kinds[dice.choice(sorted(kinds))]()


def _row(token: str, value: Any, **more: Any) -> Body:
    return {"token": token, "logprob": value, **more}


def _chat_rows(rows: list[tuple[str, Any]], lead: list[str]) -> Body:
    before = [{**_row(blank, -0.2), "top_logprobs": [_row(blank, -0.2), _row("A", -2.5)]} for blank in lead]
    return {"content": [*before, {**_row(*rows[0]), "top_logprobs": [_row(*row) for row in rows]}]}


def _plain_rows(rows: list[tuple[str, Any]], lead: list[str]) -> Any:
    return _chat_rows(rows, lead)["content"]


def _bytes_rows(rows: list[tuple[str, Any]], lead: list[str]) -> Body:
    """Tokens only by their bytes, and single letters by byte fallback."""

    def spelled(token: str) -> Body:
        plain = token.replace("Ġ", " ").replace("▁", " ").replace("Ċ", "\n")
        if len(plain) == 1 and plain.isascii():
            return {"token": f"<0x{ord(plain):02X}>", "bytes": [ord(plain)]}
        return {"token": "", "bytes": list(plain.encode())}

    listed = [{**spelled(token), "logprob": value} for token, value in rows]
    before = [{**spelled(blank), "logprob": -0.2, "top_logprobs": []} for blank in lead]
    return {"content": [*before, {**listed[0], "top_logprobs": listed}]}


def _legacy_rows(rows: list[tuple[str, Any]], lead: list[str]) -> Body:
    return {
        "tokens": [*lead, rows[0][0]],
        "token_logprobs": [*(-0.2 for _ in lead), rows[0][1]],
        "top_logprobs": [*({blank: -0.2} for blank in lead), dict(reversed(rows))],
        "text_offset": list(range(len(lead) + 1)),
    }


def _gemini_rows(rows: list[tuple[str, Any]], lead: list[str]) -> Body:
    def row(token: str, value: Any) -> Body:
        return {"token": token, "tokenId": 1, "logProbability": value}

    return {
        "chosenCandidates": [*(row(blank, -0.2) for blank in lead), row(*rows[0])],
        "topCandidates": [
            *({"candidates": [row(blank, -0.2)]} for blank in lead),
            {"candidates": [row(*each) for each in rows]},
        ],
    }


def _with_rows(dice: random.Random, rows: Any, text: str, *, finish: str = "length", **fields: Any) -> Body:
    return _envelope(dice, [{**_choice(dice, text, finish=finish, **fields), "logprobs": rows}])


# --- choices and envelopes ----------------------------------------------------------------------


def _choice(dice: random.Random, content: Any, *, finish: str | None = None, **fields: Any) -> Body:
    message = {"role": "assistant", "content": content, **fields}
    ending = dice.choice(FINISHED) if finish is None else finish
    choice = {"index": 0, "message": message, "logprobs": None}
    return choice if ending == "absent" else {**choice, "finish_reason": ending}


def _thinking_fields(dice: random.Random, thought: str) -> Body:
    return dice.choice(
        (
            {},
            {},
            {"reasoning_content": thought},
            {"reasoning": thought, "reasoning_details": [{"type": "reasoning.text", "text": thought}]},
            {"thinking_blocks": [{"type": "thinking", "thinking": thought, "signature": "x"}]},
            {"reasoning_content": None, "refusal": None, "tool_calls": []},
        )
    )


def _in_parts(dice: random.Random, choice: Body) -> Body:
    """The content as a list of parts, some of them thinking."""
    text = choice["message"]["content"]
    decoy = '{"reasoning": "x", "score": 0.123}'
    parts = dice.choice(
        (
            None,
            None,
            None,
            [{"type": "text", "text": text}],
            [{"type": "output_text", "text": text, "annotations": []}],
            [{"type": "thinking", "thinking": [{"type": "text", "text": decoy}]}, {"type": "text", "text": text}],
            [{"type": "redacted_thinking", "data": "x"}, {"type": "text", "text": text}],
            [{"type": "reasoning", "text": decoy}, {"type": "text", "text": text}],
            [{"text": decoy, "thought": True}, {"text": text}],
        )
    )
    return choice if parts is None else {**choice, "message": {**choice["message"], "content": parts}}


def _envelope(dice: random.Random, choices: list[Body]) -> Body:
    """The choices in the body of one kind of server."""
    for index, choice in enumerate(choices):
        choice["index"] = index
    body: Body = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m", "choices": choices}
    return body | dice.choice(
        (
            {"system_fingerprint": "fp_44709d6fcb"},
            {"system_fingerprint": "fp_ollama"},
            {"system_fingerprint": "b4589-6a4b", "timings": {"predicted_n": 1}},
            {
                "prompt_logprobs": None,
                "kv_transfer_params": None,
                "usage": {"prompt_tokens": 9, "completion_tokens": 1},
            },
            {"system_fingerprint": "3.0.1-native"},
            {"model": "gemini-2.5-flash", "usage": {"total_tokens": 3}},
            {"model": "claude-haiku-4-5", "service_tier": None},
            {"provider": "x"},
            {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}]},
            {"stats": {}, "system_fingerprint": "m"},
        )
    )
