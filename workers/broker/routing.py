"""The queues, and the queue of each hint.

`Judge.resource` names the queue of a judge, so that models on the GPU and calls over HTTP do not wait for each other. All
other tasks have their queue in the settings (`CELERY_TASK_ROUTES`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from labeling.models import Annotator
from labeling.plugins import Judge, UnknownPlugin, get_plugin
from workers.models import InjectionProbe, JudgeTeaching, JudgeTrial

HTTP_THREADS = 8


@dataclass(frozen=True, slots=True)
class QueueKind:
    """A queue as `manage.py worker` serves it: what it is for, in what `pool` and how many at a time (0: one a core)."""

    name: str
    about: str
    pool: str
    concurrency: int


QUEUES: Mapping[str, QueueKind] = {
    kind.name: kind
    for kind in (
        QueueKind("rating", "fits scores and advances runs", "solo", 1),
        QueueKind("judging-cpu", "runs judges on the processor; retrieves candidates", "prefork", 0),
        QueueKind("judging-gpu", "runs judges that load a language model", "prefork", 1),
        QueueKind("judging-http", "calls judges over HTTP, many at a time", "threads", HTTP_THREADS),
        QueueKind("training", "trains, measures and exports rerankers", "solo", 1),
    )
}


def judging_queue(plugin: str) -> str:
    """The queue of a judge's tasks; tasks of a judge that is not installed fail in `judging-cpu`."""
    try:
        resource = cast("type[Judge]", get_plugin("judge", plugin)).resource
    except UnknownPlugin:
        resource = "cpu"
    return f"judging-{resource}"


_judging: dict[int, str] = {}


def queue_of(task: str, subject: int) -> str | None:
    """The queue of `workers.tasks.<task>(subject)` where the judge decides; None where the settings do."""
    if task == "judge":
        return _queue_of_judge(subject)
    if task == "probe":
        asked = InjectionProbe.objects.filter(job=subject).values_list("annotator_id", flat=True).first()
        return "judging-cpu" if asked is None else _queue_of_judge(asked)
    if task == "teach":
        taught = JudgeTeaching.objects.filter(job=subject).values_list("annotator_id", flat=True).first()
        return "judging-cpu" if taught is None else _queue_of_judge(taught)
    if task == "trial":
        tried = JudgeTrial.objects.filter(job=subject).values_list("annotator_id", flat=True).first()
        return "judging-cpu" if tried is None else _queue_of_judge(tried)
    return None


def _queue_of_judge(annotator_id: int) -> str:
    """The queue of an annotator, looked up once in each process: its plugin never changes."""
    if annotator_id not in _judging:
        plugin = Annotator.objects.filter(pk=annotator_id).values_list("plugin", flat=True).first()
        if plugin is None:
            return "judging-cpu"
        _judging[annotator_id] = judging_queue(plugin)
    return _judging[annotator_id]
