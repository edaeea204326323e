"""Judge plugin `grade`: asks a model for the grade of each document alone, and prefers the higher one.

The grade is the expected value over the probabilities of the labels 0 to 3 (UMBRELA, arXiv 2411.08275) or 0 to 9. A run pays for
each document once, not for each pair: grades are kept in the process and in `labeling.models.ModelGrade`, from which a
calibration may read them where the option `anchor` allows it. Imports no Django.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import string
from dataclasses import replace
from typing import Any, Literal

import pydantic
from scipy.special import expit

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, PointwiseGrade, TextRecord, Usage, Verdict
from workers.endpoints.gates import Gate
from workers.endpoints.registry import Access, Endpoint
from workers.judges.openai.answers import Asked, MissingLabel
from workers.judges.openai.judge import OpenAIHttpJudge
from workers.judges.openai.many_labels import read_label_masses
from workers.judges.openai.options import EndpointOptions
from workers.judges.prompting import Cutter, Prompt, clean, cut_by_bytes, cutter_of, nonce_for
from workers.judges.score_difference import Recent
from workers.judges.set_prompting import read_prompt

GRADES_KEPT = 200_000
HIGHEST = {"0-3": 3, "0-9": 9}

Side = tuple[int, int]


class GradeOptions(EndpointOptions):
    """Options of `grade`."""

    mode: Literal["logprob"] = pydantic.Field(default="logprob", description="The expected value over the labels.")
    scale: Literal["0-3", "0-9"] = pydantic.Field(
        default="0-3", description="0-3: the grades of UMBRELA; 0-9: ten steps, for models that use them."
    )
    temperature_of_grades: float = pydantic.Field(
        default=0.15, gt=0, le=100, description="Share of the scale by which grades differ at a preference of .73."
    )
    anchor: bool = pydantic.Field(
        default=False, description="Calibrate relevance on these grades where people gave neither grades nor answers."
    )
    min_label_mass: float = pydantic.Field(
        default=0.8, ge=0, le=1, description="Smallest sum of the labels' probabilities that counts as an answer."
    )
    missing_label: MissingLabel = pydantic.Field(
        default="floor", description="A label outside the alternatives: fail, or floor (it counts as impossible)."
    )


@register
class GradeJudge(OpenAIHttpJudge):
    """preference = sigmoid(difference of grades / temperature). The order of presentation has no effect."""

    name = "grade"
    label = "Language model over HTTP, grades of single documents"
    Options = GradeOptions  # type: ignore[assignment]  # endpoint and model have no default
    options: GradeOptions  # type: ignore[assignment]  # the two judges share EndpointOptions alone

    added_options = frozenset()

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self._known: Recent[Side, float] = Recent(GRADES_KEPT)
        self._pending: dict[Side, asyncio.Future[Verdict | Failure]] = {}

    @property
    def _highest(self) -> int:
        return HIGHEST[self.options.scale]

    @property
    def _scale_text(self) -> str:
        return f"grade_{self._highest}"

    def hash_of_prompts(self) -> str:
        names = ["system_grade", "grade", self._scale_text]
        return hashlib.sha256("\x00".join(map(read_prompt, names)).encode()).hexdigest()

    @property
    def calls_per_comparison(self) -> int:
        return 1

    @property
    def answer_tokens(self) -> tuple[float, int]:
        most = self._label_limit(1)
        return float(most), most

    def frame(self, instruction: str) -> str:
        nothing = TextRecord(0, "")
        prompt = self._grade_prompt(nothing, nothing, instruction, cut_by_bytes)
        return f"{prompt.system}\n{prompt.user}"

    @classmethod
    def calls_of_design(cls, pairs: int, candidates: int) -> int:
        """Paid calls for that many pairs over so many candidates: each is graded once."""
        return min(candidates, 2 * pairs)

    def prepare(self, collection: Collection) -> None:
        """Read the grades that this judge has given before."""
        super().prepare(collection)
        self._known = Recent(GRADES_KEPT)
        own = getattr(collection, "own_grades", None)
        for grade in own(GRADES_KEPT) if own is not None else ():
            self._known.put((grade.query_id, grade.document_id), grade.value)

    def prompt(self, comparison: Comparison, cut: Cutter) -> Prompt:
        """The prompt of the first side."""
        return self._grade_prompt(comparison.query_a, comparison.a, comparison.instruction, cut)

    def _grade_prompt(self, query: TextRecord, document: TextRecord, instruction: str, cut: Cutter) -> Prompt:
        asked, query_cut = cut(clean(query.text), self._limits.query_tokens)
        text, text_cut = cut(clean(document.text), self._limits.document_tokens)
        instruction = clean(instruction).strip()
        # Equal up to the document: a server with a prefix cache reads instruction and query once.
        prefix_key = hashlib.sha256("\x00".join(["grade", instruction, asked]).encode()).hexdigest()
        user = _template().substitute(
            instruction=f"Instruction of this project: {instruction}\n\n" if instruction else "",
            nonce=nonce_for(prefix_key, [asked, text]),
            query=asked,
            text=text,
            scale=read_prompt(self._scale_text).strip(),
        )
        return Prompt(read_prompt("system_grade"), user.rstrip(), query_cut or text_cut, prefix_key)

    async def _judge_one(
        self,
        comparison: Comparison,
        prompt: Prompt,
        endpoint: Endpoint,
        access: Access,
        deadline: float,
        gate: Gate | None = None,
    ) -> Verdict | Failure:
        """Grade both sides, as far as they have no grade yet; calls of another comparison are waited for, not repeated."""
        sides = [(comparison.query_a, comparison.a), (comparison.query_b, comparison.b)]
        answers = await asyncio.gather(
            *(self._grade(comparison, query, each, endpoint, access, deadline, gate) for query, each in sides)
        )
        usage = _together([answer.usage for answer in answers])
        for answer in answers:
            if isinstance(answer, Failure):
                return replace(answer, usage=usage)
        values = [answer.preference or 0.0 for answer in answers if isinstance(answer, Verdict)]
        return Verdict(
            preference=float(expit((values[0] - values[1]) / self.options.temperature_of_grades)),
            truncated=any(answer.truncated for answer in answers if isinstance(answer, Verdict)),
            usage=usage,
            grades=tuple(
                PointwiseGrade(query.id, each.id, value) for (query, each), value in zip(sides, values, strict=True)
            ),
        )

    async def _grade(
        self,
        comparison: Comparison,
        query: TextRecord,
        document: TextRecord,
        endpoint: Endpoint,
        access: Access,
        deadline: float,
        gate: Gate | None,
    ) -> Verdict | Failure:
        """The grade of one document as a verdict whose preference is its share of the scale; free if it is known."""
        side = (query.id, document.id)
        if (known := self._known.get(side)) is not None:
            return Verdict(preference=known)
        if side in self._pending:
            return replace(await asyncio.shield(self._pending[side]), usage=Usage())
        future = self._pending[side] = asyncio.get_running_loop().create_future()
        try:
            alone = Comparison(comparison.key, query, query, document, document)
            prompt = self._grade_prompt(query, document, comparison.instruction, cutter_of(self.options.tokenizer))
            answer = await super()._judge_one(alone, prompt, endpoint, access, deadline, gate)
            if isinstance(answer, Verdict) and answer.preference is not None:
                self._known.put(side, answer.preference)
            future.set_result(answer)
            return answer
        finally:
            self._pending.pop(side, None)
            if not future.done():
                future.cancel()

    def verdict(self, comparison: Comparison, bodies: list[dict[str, Any]], asked: Asked) -> Verdict:
        labels = [str(grade) for grade in range(self._highest + 1)]
        least, missing = self.options.min_label_mass, self.options.missing_label
        found = read_label_masses(bodies[0], labels, least_mass=least, missing=missing, asked=asked)
        expected = sum(grade * share for grade, share in enumerate(found.shares))
        return Verdict(preference=min(max(expected / self._highest, 0.0), 1.0))


def _together(usages: list[Usage]) -> Usage:
    """The usage of the calls that were made; a grade that was known made none."""
    made = [usage for usage in usages if usage != Usage()]
    if len(made) < 2:
        return made[0] if made else Usage()
    calls = tuple(call for usage in made for call in usage.calls or (usage,))
    return Usage(
        sum(usage.input_tokens for usage in made),
        sum(usage.output_tokens for usage in made),
        sum(usage.cost_micros for usage in made),
        max(usage.latency_s for usage in made),
        calls,
    )


@functools.cache
def _template() -> string.Template:
    return string.Template(read_prompt("grade"))
