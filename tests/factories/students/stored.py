"""A published pairwise student with random weights, stored as a training stores one."""

from __future__ import annotations

from pathlib import Path

from labeling.models import Project
from scoring.models import Snapshot
from scoring.storage.files import storage
from tests.factories.weights.adapters import save_random_adapter
from tests.factories.weights.tiny_models import save_tiny_bert
from trainer.models import Reranker, TrainingRun
from trainer.publishing.export import ModelCard
from trainer.publishing.pairwise_export import publish_pairwise
from trainer.serving.registry import PAIRWISE_JUDGE


def stored_student(run: TrainingRun, folder: Path, *, release: str = Reranker.Release.PUBLISHED) -> Reranker:
    """The student of this training run."""
    base = str(save_tiny_bert(folder / "base"))
    published = publish_pairwise(
        save_random_adapter(folder / "adapter", base=base), base=base, out=folder / "student",
        card=ModelCard(name="student"), max_length=64,
    )  # fmt: skip
    location = f"rerankers/student-{run.pk}"
    storage().upload_folder(published.folder, location)
    return Reranker.objects.create(
        project=run.project, training_run=run, name=f"student {run.pk}", kind=PAIRWISE_JUDGE, location=location,
        checksum=published.checksum, manifest=dict(published.manifest), release=release,
    )  # fmt: skip


def pairwise_run(project: Project, snapshot: Snapshot, state: str) -> TrainingRun:
    """A run of the trainer `pairwise` in this state, without any training."""
    return TrainingRun.objects.create(project=project, snapshot=snapshot, trainer="pairwise", state=state)
