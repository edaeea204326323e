"""Makes judges of published pairwise students: enters them in their project, and finds their files by checksum."""

from __future__ import annotations

from pathlib import Path

from labeling.access.annotators import get_judge
from labeling.models import Annotator
from trainer.models import Reranker
from trainer.serving.registry import PAIRWISE_JUDGE, artefact_folder, artefact_of
from workers.judges.pairwise_student import PairwiseStudentJudge, StudentMissing, find_students_with

HELD_BACK = "held back"


def enter_judge(reranker: Reranker) -> Annotator | None:
    """The judge of a published pairwise student in its project; None for other rerankers and held-back students."""
    if reranker.kind != PAIRWISE_JUDGE or reranker.release == Reranker.Release.HELD_BACK:
        return None
    name = reranker.name
    if (
        reranker.release == Reranker.Release.PUBLISHED_ANYWAY
    ):  # a judge has no badge: its name says it on every page and in exports
        name = f"{name} · {HELD_BACK}"
    return get_judge(reranker.project, PairwiseStudentJudge.name, {"student": reranker.checksum}, name=name)


def student_folder(checksum: str) -> Path:
    """The files of the published pairwise student with this checksum, on this machine. Raises StudentMissing, ManifestBroken."""
    students = Reranker.objects.filter(kind=PAIRWISE_JUDGE, checksum=checksum).select_related("project")
    student = students.exclude(release=Reranker.Release.HELD_BACK).first()
    if student is None:
        raise StudentMissing(
            f"no published pairwise student has the checksum {checksum[:12]}; its training page shows the checksum of each; a "
            "student that is held back can be published there"
        )
    return artefact_folder(artefact_of(student))


def find_students() -> None:
    """Let the judge `pairwise-student` find the students of this installation."""
    find_students_with(student_folder)
