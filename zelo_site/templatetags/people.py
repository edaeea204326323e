"""Template tags about people: the user's role in a project, and agreement figures in words."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Project
from scoring.people_agreement import Coefficient, Undefined
from zelo_site.pages.scope import visitor_role
from zelo_site.templatetags.figures import localized

register = template.Library()


@register.simple_tag(takes_context=True)
def role_in(context: dict[str, Any], project: Project | None) -> str:
    """Return the user's role in the project, or an empty string."""
    request = context.get("request")
    if request is None or project is None or not request.user.is_authenticated:
        return ""
    return str(visitor_role(request, project) or "")


@register.filter
def why_undefined(figure: Coefficient) -> str:
    """Return why there is no coefficient."""
    if figure.undefined == Undefined.NO_OVERLAP:
        return _("no common pairs")
    if figure.undefined == Undefined.FEW:
        return ngettext(
            "one common pair is too few for an interval", "%(n)d common pairs are too few", figure.common
        ) % {"n": figure.common}
    if figure.undefined == Undefined.ONE_CATEGORY:
        return _("all answers are the same, so kappa is undefined; see percent agreement")
    return ""


@register.filter
def coefficient(value: float | None) -> str:
    """Format with two decimals and a true minus."""
    return "–" if value is None else localized(f"{value:.2f}".replace("-", "−"))


@register.filter
def in_words(value: float | None) -> str:
    """Return the Landis and Koch description of a kappa or alpha."""
    if value is None:
        return ""
    for bound, words in (
        (0.0, _("no better than chance")),
        (0.2, _("slight")),
        (0.4, _("fair")),
        (0.6, _("moderate")),
        (0.8, _("substantial")),
    ):
        if value <= bound:
            return words
    return _("almost perfect")
