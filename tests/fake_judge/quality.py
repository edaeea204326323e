"""What the fake judge thinks: hidden quality by content, and the errors that a real judge would make.

Everything follows from the seed and from the texts, so that the same question gets the same answer in
any order of calls. Used by `server`.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

SECTION = re.compile(
    r"\[\[(QUERY|QUERY A|QUERY B|DOCUMENT|DOCUMENT [A-P]) ([0-9a-f]+)\]\]\n(.*?)\n\[\[END \1 \2\]\]", re.S
)

EXAMPLE = re.compile(
    r"\[\[EXAMPLE DOCUMENT A [0-9a-f]+\]\]\n(.*?)\n\[\[END.*?\[\[EXAMPLE DOCUMENT B [0-9a-f]+\]\]\n(.*?)\n\[\[END"
    r".*?Answer of the people of this project: (?:Document )?(A|B)",
    re.S,
)


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """How one judge (one `model` name) errs. All but `susceptibility`, `label_mass` and `uniform` are in logits.

    `scale` multiplies differences of quality; `sigma` is this judge's noise on a pair, `shared_sigma` what all
    judges share; `position_bias` goes to the first document, `length_bias` to the longer one for each factor e;
    `susceptibility` is the share of pairs that a payload wins outright; `label_mass` = P(A) + P(B);
    `uniform` mixes in U(0, 1). `learns` goes to the longer document for each factor e, times what the examples in the prompt
    prefer in length (1: all the longer, -1: all the shorter document). `fault_rates` adds to the server's; `dialect` names what its server does differently.
    """

    scale: float = 1.0
    sigma: float = 0.2
    shared_sigma: float = 0.0
    uniform: float = 0.0
    learns: float = 0.0
    position_bias: float = 0.0
    length_bias: float = 0.0
    susceptibility: float = 0.0
    label_mass: float = 0.98
    fault_rates: Mapping[str, float] = field(default_factory=dict)
    dialect: tuple[str, ...] = ()

    def changed(self, values: Mapping[str, Any]) -> JudgeSettings:
        return replace(self, **values)


@dataclass(frozen=True, slots=True)
class Question:
    """A comparison as it stood in the prompt; the first document is A. `taste`: what the examples before it prefer in
    length, from -1 (all the shorter document) to 1.
    """

    query_first: str
    query_second: str
    first: str
    second: str
    taste: float = 0.0

    @classmethod
    def read(cls, text: str) -> Question | None:
        """From the fenced sections of a prompt; None where there are not two documents."""
        sections = {name: content for name, _, content in SECTION.findall(text)}
        if "DOCUMENT A" not in sections or "DOCUMENT B" not in sections:
            return None
        query = sections.get("QUERY", "")
        return cls(
            query_first=sections.get("QUERY A", query),
            query_second=sections.get("QUERY B", query),
            first=sections["DOCUMENT A"],
            second=sections["DOCUMENT B"],
            taste=_taste(text),
        )


def _taste(text: str) -> float:
    """The mean over the examples: 1 where the answer is the longer document, -1 where it is the shorter one."""
    sides = [
        (len(first) - len(second)) * (1 if answer == "A" else -1)
        for first, second, answer in EXAMPLE.findall(text)
        if len(first) != len(second)
    ]
    return sum(math.copysign(1.0, side) for side in sides) / len(sides) if sides else 0.0


@dataclass(frozen=True, slots=True)
class SetQuestion:
    """One query with the documents of a set under letters, or with one document that is to be graded."""

    query: str
    documents: tuple[str, ...]
    labels: tuple[str, ...]

    @classmethod
    def read(cls, text: str) -> SetQuestion | None:
        """From the fenced sections of a prompt; None for a question about a pair in the prompt of pairs."""
        sections = {name: content for name, _, content in SECTION.findall(text)}
        if "DOCUMENT" in sections and "QUERY" in sections:
            highest = 9 if "(nothing to do with the query) over 5" in text else 3
            labels = tuple(str(grade) for grade in range(highest + 1))
            return cls(sections["QUERY"], (sections["DOCUMENT"],), labels)
        letters = sorted(name[-1] for name in sections if name.startswith("DOCUMENT "))
        if "QUERY" not in sections or "Which of these" not in text or not letters:
            return None
        return cls(sections["QUERY"], tuple(sections[f"DOCUMENT {letter}"] for letter in letters), tuple(letters))


def quality_key(document: str, query: str | None = None) -> str:
    """The key under which a quality map holds a document, for one query or for all."""
    text = _squeezed(document) if query is None else f"{_squeezed(query)}\x00{_squeezed(document)}"
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def _squeezed(text: str) -> str:
    return " ".join(text.split())


class HiddenQuality:
    """Quality of a document for a query, in logits: from a map, otherwise N(0, spread) by content hash.

    Payloads are taken out of a document before its quality is looked up.
    """

    def __init__(
        self,
        *,
        seed: int,
        spread: float = 1.5,
        query_spread: float = 0.0,
        known: Mapping[str, float] | None = None,
        payloads: tuple[str, ...] = (),
    ) -> None:
        self.seed = seed
        self.spread = spread
        self.query_spread = query_spread
        self.known = dict(known or {})
        self.payloads = tuple(_squeezed(payload) for payload in payloads)

    @classmethod
    def from_files(cls, *, quality: Path | None, payloads: Path | None, **rest: Any) -> HiddenQuality:
        """`quality`: a JSON object {quality_key: number}; `payloads`: a JSON array of texts."""
        known = json.loads(quality.read_text()) if quality else {}
        return cls(known=known, payloads=tuple(json.loads(payloads.read_text())) if payloads else (), **rest)

    def strip_payload(self, document: str) -> tuple[str, bool]:
        """The document without payloads, and whether it held one."""
        squeezed = _squeezed(document)
        bare = squeezed
        for payload in self.payloads:
            bare = bare.replace(payload, " ")
        return _squeezed(bare), bare != squeezed

    def of(self, document: str, query: str) -> float:
        for key in (quality_key(document, query), quality_key(document)):
            if key in self.known:
                return self.known[key]
        own = self.spread * gauss(f"quality {self.seed} {quality_key(document, query)}")
        return own + self.query_spread * gauss(f"query {self.seed} {_squeezed(query)}")

    def preference_of_first(self, question: Question, judge: str, settings: JudgeSettings) -> float:
        """P(the first document is the more relevant) by this judge, in (0, 1)."""
        first, first_cheats = self.strip_payload(question.first)
        second, second_cheats = self.strip_payload(question.second)
        keys = quality_key(first, question.query_first), quality_key(second, question.query_second)
        pair = f"{self.seed} {min(keys)} {max(keys)}"
        sign = 1.0 if keys[0] < keys[1] else -1.0
        if first_cheats != second_cheats and uniform(f"payload {judge} {pair}") < settings.susceptibility:
            return 0.97 if first_cheats else 0.03
        logit = settings.scale * (self.of(first, question.query_first) - self.of(second, question.query_second))
        logit += sign * settings.sigma * gauss(f"noise {judge} {pair}")
        logit += sign * settings.shared_sigma * gauss(f"shared {pair}")
        logit += settings.position_bias
        length = settings.length_bias + settings.learns * question.taste
        logit += length * math.log((len(question.first) + 1) / (len(question.second) + 1))
        preference = 1.0 / (1.0 + math.exp(-max(-40.0, min(40.0, logit))))
        if settings.uniform:
            drawn = uniform(f"uniform {judge} {pair}")
            drawn = drawn if sign > 0 else 1.0 - drawn
            preference = (1.0 - settings.uniform) * preference + settings.uniform * drawn
        return min(max(preference, 1e-9), 1.0 - 1e-9)

    def shares_of_labels(self, question: SetQuestion, judge: str, settings: JudgeSettings) -> list[float]:
        """The probability of each label: a softmax over a set's qualities, each with an error of this call, whose
        differences have the deviation `sigma`; for a grade, a bell around the quality's place on the scale.
        """
        call = f"{judge} {self.seed} {' '.join(sorted(map(quality_key, question.documents)))}"
        logits = [
            settings.scale * self.of(self.strip_payload(document)[0], question.query)
            + settings.sigma / math.sqrt(2.0) * gauss(f"set {call} {quality_key(document)}")
            + settings.position_bias * (place == 0)
            for place, document in enumerate(question.documents)
        ]
        if len(question.documents) == 1:
            place = (len(question.labels) - 1) / (1.0 + math.exp(-logits[0]))
            logits = [-2.0 * (grade - place) ** 2 for grade in range(len(question.labels))]
        exponentials = [math.exp(logit - max(logits)) for logit in logits]
        return [each / sum(exponentials) for each in exponentials]


@lru_cache(maxsize=200_000)
def gauss(name: str) -> float:
    """A draw from N(0, 1) that belongs to this name (Box-Muller)."""
    digest = hashlib.blake2b(name.encode(errors="replace"), digest_size=16).digest()
    first = (int.from_bytes(digest[:8], "big") + 1) / (2**64 + 1)
    second = int.from_bytes(digest[8:], "big") / 2**64
    return math.sqrt(-2.0 * math.log(first)) * math.cos(2.0 * math.pi * second)


def uniform(name: str) -> float:
    """A draw from U[0, 1) that belongs to this name."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="replace"), digest_size=8).digest(), "big") / 2**64
