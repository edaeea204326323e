"""Builds the report of a project, for the page, REST and `manage.py report`, with the same figures as the pages."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import QuerySet
from django.utils import timezone
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from labeling.models import Project
from scoring.models import Snapshot
from trainer.evaluation.leaderboard import SPLITS
from trainer.evaluation.snapshot_comparison import compare_snapshots
from trainer.models import Evaluation
from workers.monitoring.project_figures import Figure, read_figure
from zelo_site.report.document import Facts, Report, Section
from zelo_site.report.labels import label_sections
from zelo_site.report.origin import named, settings_section, snapshots_section, versions_section
from zelo_site.report.proof import RESAMPLES, comparison_sections, proof_sections

Found = TypeVar("Found")
SHOWN_AGE = timedelta(minutes=1)


class ReportRefused(ValueError):
    """The report cannot be built as ordered; the message names the wrong choice."""


def evaluated_snapshot(
    project: Project, snapshots: QuerySet[Snapshot], before: Snapshot | None = None, *, chosen: Snapshot | None = None
) -> tuple[Snapshot | None, str]:
    """Return the default of a report, the snapshot and split that were evaluated last; else the latest and `test`.

    With `before`, only later snapshots; None if there is none. With `chosen`, this one and the split on which it was evaluated last.
    """
    if chosen is not None:
        snapshots = snapshots.filter(pk=chosen.pk)
    elif before is not None:
        snapshots = snapshots.exclude(pk=before.pk).filter(created_at__gte=before.created_at)
    latest = Evaluation.objects.filter(project=project, snapshot__in=snapshots).defer("scores", "metrics").first()
    return (latest.snapshot, latest.split) if latest is not None else (snapshots.first(), "test")


def _check_order(before: Snapshot, snapshot: Snapshot | None) -> None:
    if snapshot is None:
        message = _("no snapshot was frozen after “%(name)s”; freeze one, then compare")
        raise ReportRefused(message % {"name": before.name})
    if before.pk == snapshot.pk:
        raise ReportRefused(_("the snapshot is compared with itself; choose two different snapshots"))
    if before.created_at > snapshot.created_at:
        message = _("“%(first)s” was frozen after “%(second)s”; exchange the two")
        raise ReportRefused(message % {"first": named(before, [snapshot]), "second": named(snapshot, [before])})


def build_report(
    project: Project,
    *,
    snapshot: Snapshot | None,
    split: str = "test",
    before: Snapshot | None = None,
    kept_s: float | None = None,
) -> Report:
    """Return the report of a project as of now, its proof on `split` of `snapshot`.

    With `before`, an earlier snapshot, the report opens with the two side by side. `kept_s`: slow figures of labels may be stored ones
    of so long ago, or older while a worker renews them; the report then says how old. Raises ReportRefused.
    """
    if split not in SPLITS:
        raise ReportRefused(f"split is {split!r}; expected one of {', '.join(SPLITS)}")
    if before is not None:
        _check_order(before, snapshot)
    sections: list[Section] = []
    if before is not None and snapshot is not None:
        sections.append(snapshots_section(before, snapshot))
        sections += comparison_sections(compare_snapshots(project, before, snapshot, resamples=RESAMPLES))
    ages: list[datetime] = []

    def read(figure: Figure[Found], /) -> Found | None:
        if kept_s is None:
            return figure.compute(project)
        found = read_figure(project, figure, kept_s=kept_s)
        ages.extend([found.at] if found.at is not None else [])
        return found.value

    sections += label_sections(project, read)
    sections += proof_sections(project, snapshot, split)
    sections.append(settings_section(project, snapshot))
    compared = [each for each in (before, snapshot) if each is not None]
    sections.append(versions_section(project, compared))
    facts = [(_("created"), f"{timezone.now():%Y-%m-%d %H:%M} UTC")]
    if ages and timezone.now() - min(ages) > SHOWN_AGE:
        facts.append((_("oldest figure of labels"), f"{min(ages):%Y-%m-%d %H:%M} UTC"))
    if snapshot is not None:
        facts += [(_("snapshot"), named(snapshot, compared)), (_("split"), split)]
    if before is not None:
        facts.append((_("compared with"), named(before, compared)))
    title = _("Report on %(name)s") % {"name": project.name}
    return Report(title, Facts(tuple(facts)), tuple(sections), get_language() or "en")
