"""Judge plugin `imported`: the annotator of judgments that came in by a file. It answers no questions. Imports no Django.

`labeling.importing.answers` makes its annotators, and the options name their source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from labeling.plugins import Judge, register
from labeling.records import Collection, Comparison, Failure, FailureKind, Verdict

_REFUSAL = "its answers were imported; import another file for more, or upload the file on the page Recorded answers to replay it"


class ImportedOptions(Judge.Options):
    annotator: str = pydantic.Field(
        default="imported", max_length=200, description="Name of the annotator in the file."
    )
    key: str = pydantic.Field(default="", max_length=200, description="The source's own id of the annotator.")


@register
class ImportedJudge(Judge):
    """Judgments that were imported: they count as those of any judge, and nobody can ask for more."""

    name = "imported"
    label = "Imported judgments"
    can_drift = False
    can_be_asked = False
    Options = ImportedOptions
    options: ImportedOptions

    @classmethod
    def problems(cls, options: Mapping[str, Any]) -> list[str]:
        return [_REFUSAL]

    def prepare(self, collection: Collection) -> None:
        pass

    def judge(self, comparisons: Sequence[Comparison]) -> list[Verdict | Failure]:
        return [Failure(FailureKind.NOT_RECORDED, _REFUSAL, retryable=False) for _ in comparisons]
