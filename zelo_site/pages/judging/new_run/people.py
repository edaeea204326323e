"""The preset "Only people" of a new run: pairs for people instead of a run of judges, with the time that they take."""

from __future__ import annotations

from typing import Any

from django import forms
from django.http import QueryDict
from django.utils.translation import gettext_lazy

from labeling.models import Project, SpotCheck
from scoring.models import QueryFit
from scoring.spot_checks.draws import MOST_OVERLAP, MOST_PAIRS
from scoring.spot_checks.plans import Planned, Preview, plan_spot_checks, preview_spot_checks
from zelo_site.pages.forms import PageForm

DEFAULT_PAIRS = 50


class PeopleForm(PageForm):
    """The number of pairs that people compare, and of people who compare each."""

    pairs = forms.IntegerField(label=gettext_lazy("Pairs"), min_value=1, max_value=MOST_PAIRS, initial=DEFAULT_PAIRS)
    overlap = forms.IntegerField(label=gettext_lazy("People per pair"), min_value=1, max_value=MOST_OVERLAP, initial=1)


def _reason(project: Project) -> str:
    """The pairs with the least certain scores; before the first scores, random ones."""
    is_rated = QueryFit.objects.filter(query__project=project, judgments__gt=0).exists()
    return SpotCheck.Reason.UNCERTAIN if is_rated else SpotCheck.Reason.RANDOM


def plan_people(project: Project, sent: QueryDict, *, by: Any) -> Planned:
    """Open the pairs for people. Raises BadForm, BadPlan."""
    return plan_spot_checks(project, reason=_reason(project), **PeopleForm(sent).checked(), by=by)


def preview_people(project: Project, sent: QueryDict) -> Preview:
    """Return what `plan_people` would open. Raises BadForm, BadPlan."""
    return preview_spot_checks(project, reason=_reason(project), **PeopleForm(sent).checked())
