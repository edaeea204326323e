"""Judge plugin `pairwise-student`: a model that was distilled from a panel of judges, and reads both documents.

It answers each pair in both orders and averages the logits, so that P(a over b) = 1 - P(b over a) exactly. Decoders share the
pass over query and first document among the pairs of a batch. Imports no Django, and torch only in `prepare`;
`workers.jobs.student_judges` sets how a checksum leads to the student's files.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pydantic
from scipy.special import expit

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FailureKind, FloatArray, Usage, Verdict
from labeling.retrieval.model_names import check_model
from trainer.publishing.manifests import MANIFEST, file_checksum
from workers.endpoints.failures import NotAsked
from workers.judges.transformers.next_token import next_token_log_probabilities

if TYPE_CHECKING:
    from trainer.training.pairwise.student import AnyStudent

CPU_BATCH_TOKENS, CUDA_BATCH_TOKENS = 4096, 65536
_CHECKSUM = re.compile(r"[0-9a-f]{64}")


class StudentMissing(LookupError):
    """No published pairwise student has this checksum."""


def _no_students(checksum: str) -> Path:
    raise StudentMissing(
        f"no pairwise student has the checksum {checksum[:12]}; choose one that a training with the trainer pairwise published"
    )


_folder_of: Callable[[str], Path] = _no_students


def find_students_with(folder_of: Callable[[str], Path]) -> None:
    """Set how the folder of a student is found by its checksum; it raises StudentMissing for an unknown one."""
    global _folder_of
    _folder_of = folder_of


def _checked(student: str) -> str:
    return student if _CHECKSUM.fullmatch(student) else check_model(student)


class PairwiseStudentOptions(Judge.Options):
    student: str = pydantic.Field(
        min_length=1, max_length=500, description="Checksum of a published pairwise student, or its folder."
    )
    device: Literal["auto", "cpu", "cuda"] = pydantic.Field(default="auto", description="auto: CUDA if available.")
    dtype: Literal["auto", "float32", "bfloat16"] = pydantic.Field(
        default="auto", description="auto: bfloat16 on CUDA, float32 on the CPU."
    )
    batch_tokens: int = pydantic.Field(
        default=0, ge=0, description="Most tokens in one pass, padding included; 0: 4,096 on the CPU, 65,536 on CUDA."
    )
    share_prefix: bool = pydantic.Field(
        default=True, description="Decoders read query and first document once for all pairs of a batch that begin so."
    )
    threads: int = pydantic.Field(default=1, ge=1, le=256, description="CPU threads.")
    batch_deadline_s: float = pydantic.Field(
        default=150.0,
        gt=0,
        le=3600,
        description="Latest start of a pass in seconds; keep it below the lease of the tasks.",
    )

    @pydantic.field_validator("student")
    @classmethod
    def _allowed(cls, student: str) -> str:
        return _checked(student)


@register
class PairwiseStudentJudge(Judge):
    """preference = sigmoid of half the difference of its logits in the two orders."""

    name = "pairwise-student"
    label = "Pairwise student of a panel"
    can_drift = False
    batch_size = 512
    resource = "gpu"
    learns_from_panel = True
    Options = PairwiseStudentOptions  # type: ignore[assignment]  # student has no default
    options: PairwiseStudentOptions

    def __init__(self, options: Judge.Options | None = None) -> None:
        super().__init__(options)
        self.model_revision = _revision(self.options.student)
        self._student: AnyStudent | None = None
        self._lock = threading.Lock()

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        try:
            _located(str(options.get("student", "")))
        except (LookupError, OSError, ValueError) as error:
            return [str(error)]
        return []

    def prepare(self, collection: Collection) -> None:
        """Load the student, whose files are verified; the collection is not used. Raises StudentMissing, ManifestBroken."""
        import torch

        from trainer.training.pairwise.student import PairStudent

        with self._lock:
            if self._student is None:
                device = self.options.device
                if device == "auto":
                    device = "cuda" if torch.cuda.is_available() else "cpu"
                half = self.options.dtype == "bfloat16" or (self.options.dtype == "auto" and device == "cuda")
                folder = _located(self.options.student)
                self._student = PairStudent.published(folder, device=device, dtype="bfloat16" if half else "float32")

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        student = self._student
        if student is None:
            raise RuntimeError(f"judge {self.name!r} has no model yet; call prepare(collection) first")
        started = time.monotonic()
        answers: list[Verdict | Failure | None] = [_refusal(each) for each in comparisons]
        sequences: list[Any] = []
        asked: list[int] = []
        for at, comparison in enumerate(comparisons):
            if answers[at] is None:
                try:
                    sequences += _both_orders(student, comparison)
                    asked.append(at)
                except ValueError as error:  # the instruction is too long
                    answers[at] = Failure(FailureKind.CONTEXT_OVERFLOW, str(error), retryable=False)
        with self._lock:
            logits = self._logits(student, sequences, [comparisons[at] for at in asked])
        share_s = (time.monotonic() - started) / max(1, len(comparisons))
        for place, at in enumerate(asked):
            tokens = sum(len(each.ids) for each in sequences[2 * place : 2 * place + 2])
            answers[at] = self._answer(
                logits[2 * place], logits[2 * place + 1],
                truncated=sequences[2 * place].cut, usage=Usage(input_tokens=tokens, latency_s=share_s),
            )  # fmt: skip
        return [each for each in answers if each is not None]

    def _answer(self, first: float, second: float, *, truncated: bool, usage: Usage) -> Verdict | Failure:
        """The verdict from the logits with a shown first and with b shown first; NaN: not computed."""
        if not np.isfinite(first) or not np.isfinite(second):
            message = f"not asked: the batch took longer than {self.options.batch_deadline_s:g} s, or memory ran out"
            return NotAsked(FailureKind.TIMEOUT, message, retryable=True, retry_after_s=0.0)
        return Verdict(preference=float(expit((first - second) / 2.0)), truncated=truncated, usage=usage)

    def _logits(self, student: AnyStudent, sequences: Sequence[Any], comparisons: Sequence[Comparison]) -> FloatArray:
        """Logits float64[n] of the documents shown first, NaN where there is none."""
        import torch

        if not sequences:
            return np.zeros(0)
        on_cpu = student.device.type == "cpu"
        if on_cpu:
            torch.set_num_threads(self.options.threads)
        batch_tokens = self.options.batch_tokens or (CPU_BATCH_TOKENS if on_cpu else CUDA_BATCH_TOKENS)
        if student.kind == "encoder":
            return student.scores(sequences, batch_tokens=batch_tokens)
        keys = [f"{each.query_a.id} {first.id}" for each in comparisons for first in (each.a, each.b)]
        found = next_token_log_probabilities(
            student.model,
            [each.ids for each in sequences],
            student.reader.label_ids,
            keys=keys if self.options.share_prefix else None,
            pad_id=int(student.tokenizer.pad_token_id or 0),
            batch_tokens=batch_tokens,
            deadline=time.monotonic() + self.options.batch_deadline_s,
        ).log_probabilities.numpy()
        return np.asarray(found[:, 0] - found[:, 1], dtype=np.float64)


def _refusal(comparison: Comparison) -> Failure | None:
    if not comparison.cross_query:
        return None
    message = "the student has learned pairs of one query; ask another judge about pairs across queries"
    return Failure(FailureKind.BAD_REQUEST, message, retryable=False)


def _both_orders(student: AnyStudent, comparison: Comparison) -> list[Any]:
    """a first, then b first, however the comparison is presented. Raises InstructionTooLong."""
    a, b = comparison.a.text, comparison.b.text
    return [
        student.reader.tokens(
            instruction=comparison.instruction, query=comparison.query_a.text, first=first, second=second
        )
        for first, second in ((a, b), (b, a))
    ]


def _located(student: str) -> Path:
    return _folder_of(student) if _CHECKSUM.fullmatch(student) else Path(check_model(student))


def _revision(student: str) -> str:
    """The checksum of the student's manifest; empty where its folder has none."""
    if _CHECKSUM.fullmatch(student):
        return student
    manifest = Path(student) / MANIFEST
    return file_checksum(manifest) if manifest.is_file() else ""
