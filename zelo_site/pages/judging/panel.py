"""The choice of a panel, for the pages that order distilled runs, recipes and refinements."""

from __future__ import annotations

from typing import Any

from django import forms
from django.db.models import QuerySet
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from labeling.models import Annotator, Project
from scoring.annotators.student_weights import student_plugins
from workers.jobs.calibration import judges_so_far
from zelo_site.pages.forms import PageForm, shown_form


class PanelForm(PageForm):
    """The judges of the panel, at least one."""

    judge = forms.ModelMultipleChoiceField(
        Annotator.objects.none(),
        label=gettext_lazy("Judges"),
        error_messages={"required": gettext_lazy("Choose at least one judge.")},
    )


class PanelOrPeopleForm(PageForm):
    """The judges of the panel; none where people are asked."""

    judge = forms.ModelMultipleChoiceField(Annotator.objects.none(), label=gettext_lazy("Judges"), required=False)


def panel_judges(project: Project) -> QuerySet[Annotator]:
    """Judges that can be in a panel: neither people nor students."""
    found = Annotator.objects.offered().filter(project=project).exclude(plugin__in=student_plugins())
    return found.order_by("id")


def panel_so_far(project: Project) -> list[Annotator]:
    """Those of them that have judged the project."""
    judges = list(panel_judges(project))
    return [judge for judge in judges_so_far(project) if judge in judges]


def panel_context(
    project: Project, sent: QueryDict | None, error: Exception | None, *, form: type[PageForm] = PanelForm
) -> dict[str, Any]:
    """The context of `zelo/judging/parts/panel.html`: the form, the judges, and which of them are chosen."""
    rows, initial = {"judge": panel_judges(project)}, {"judge": [judge.pk for judge in panel_so_far(project)]}
    shown = shown_form(form, sent, error, rows=rows, initial=initial)
    chosen = [str(value) for value in shown["judge"].value() or []]
    return {"form": shown, "judges": list(panel_judges(project)), "chosen": chosen}
