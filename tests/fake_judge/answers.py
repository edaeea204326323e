"""Puts a preference into the shape of a chat completion: label log-probabilities, JSON score, or votes.

Used by `server`, which decides what the preference is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from tests.fake_judge.quality import uniform

Request = dict[str, Any]
FILLERS = ("The", "**", "Document", "\n", "Answer")


def mode_of(request: Request) -> str:
    """`logprob`, `reasoned` or `sampled`, by what the request asks for."""
    if request.get("logprobs"):
        return "logprob"
    form = (request.get("response_format") or {}).get("type", "text")
    if '"ranking"' in prompt_text(request):
        return "ranking"
    if form in {"json_schema", "json_object"} or '"score' in prompt_text(request):
        return "reasoned"
    return "sampled"


def prompt_text(request: Request) -> str:
    """All text of all messages; content parts other than text are left out."""
    texts: list[str] = []
    for message in request.get("messages", []):
        content = message.get("content") or ""
        parts = content if isinstance(content, list) else [{"text": content}]
        texts.extend(part.get("text", "") for part in parts)
    return "\n".join(texts)


def tokens(text: str) -> int:
    return -(-len(text.encode(errors="replace")) // 4)


def completion(
    request: Request,
    *,
    preference: float | None,
    label_mass: float,
    seed: str,
    call: int,
    shares: Mapping[str, float] | None = None,
) -> Request:
    """A chat.completion. `preference` = P(first document) or None where the prompt held no comparison; `shares`: the
    probability of each label where there are others than A and B.
    """
    if shares is None and preference is not None:
        shares = {"A": preference, "B": 1.0 - preference}
    mode = mode_of(request)
    choices: list[dict[str, Any]] = []
    for index in range(int(request.get("n") or 1)):
        content, logprobs = "I see no comparison.", None
        if preference is not None and mode == "reasoned":
            content = _scored(request, preference)
        elif shares is not None and mode == "ranking":
            content = json.dumps({"best": _ranked(shares)[0], "ranking": _ranked(shares)})
        elif preference is not None:
            temperature = request.get("temperature")
            drawn = 0.5 if mode == "logprob" or temperature == 0 else uniform(f"vote {seed} {index}")
            content = "A" if drawn < preference else "B"
        if shares is not None and mode == "logprob":
            content = _ranked(shares)[0]
            logprobs = _label_logprobs(content, shares, label_mass, int(request.get("top_logprobs") or 0))
        message = {"role": "assistant", "content": content, "refusal": None}
        choices.append({"index": index, "message": message, "logprobs": logprobs, "finish_reason": "stop"})
    prompt = tokens(prompt_text(request))
    written = sum(tokens(choice["message"]["content"]) for choice in choices)
    return {
        "id": f"chatcmpl-{call}",
        "object": "chat.completion",
        "created": 1_700_000_000 + call,
        "model": request["model"],
        "choices": choices,
        "usage": {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written},
        "system_fingerprint": "fake",
    }


def _scored(request: Request, preference: float) -> str:
    """JSON in the shape of the schema that was asked for: sentences in its strings, the score in its numbers."""
    schema = ((request.get("response_format") or {}).get("json_schema") or {}).get("schema") or {}
    properties = schema.get("properties") or _properties_of(prompt_text(request))
    score = round(2.0 * preference - 1.0, 9)
    better = "A" if score > 0 else "B"
    sentence = f"Document {better} serves its query better."
    # A model of such a name finds neither document relevant, where it is asked for that.
    return json.dumps(_filled(properties, score, sentence, neither="neither" in str(request["model"])))


def _properties_of(prompt: str) -> dict[str, Any]:
    """Of the object that a prompt asks for: a score, or one for each criterion."""
    names = re.findall(r'"([^"]+)": a number from -1 to 1', prompt.rpartition('"scores": {')[2])
    number = {"type": "number"}
    scores = {"scores": {"type": "object", "properties": dict.fromkeys(names, number)}} if '"scores"' in prompt else {}
    return {"reasoning": {"type": "string"}, **(scores or {"score": number})}


def _filled(properties: Mapping[str, Any], score: float, sentence: str, *, neither: bool) -> dict[str, Any]:
    plain = {"number": score, "boolean": neither}
    return {
        name: _filled(form["properties"], score, sentence, neither=neither)
        if form.get("type") == "object"
        else plain.get(str(form.get("type")), sentence)
        for name, form in properties.items()
    }


def _ranked(shares: Mapping[str, float]) -> list[str]:
    """The labels, the likeliest first; of equal ones the later, as `drawn < preference` decides for pairs."""
    places = {label: place for place, label in enumerate(shares)}
    return sorted(shares, key=lambda label: (-shares[label], -places[label]))


def _label_logprobs(content: str, shares: Mapping[str, float], label_mass: float, top: int) -> dict[str, Any]:
    """Log-probabilities of one token: each label in two variants, then fillers; the likeliest `top`."""
    masses = {
        f"{space}{label}": part * label_mass * share
        for label, share in shares.items()
        for space, part in (("", 0.9), (" ", 0.1))
    }
    masses |= {filler: (1.0 - label_mass) / 2 ** (place + 1) for place, filler in enumerate(FILLERS)}
    rows = [
        {"token": token, "logprob": math.log(mass) if mass > 0 else -9999.0, "bytes": list(token.encode())}
        for token, mass in sorted(masses.items(), key=lambda item: -item[1])
    ]
    chosen = next(row for row in rows if row["token"] == content)
    return {"content": [{**chosen, "top_logprobs": rows[:top]}], "refusal": None}
