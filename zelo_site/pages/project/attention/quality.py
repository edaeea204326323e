"""Problems of the scores themselves: failed fits, islands, wide intervals, a low certainty, pairs that wait for people."""

from __future__ import annotations

from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Project
from workers.monitoring.data_summary import FEW_COMPARISONS
from workers.monitoring.project_figures import FEW, light_value
from zelo_site.pages.project.attention.needs import Audience, Button, Level, Need
from zelo_site.pages.project.certainty import ProjectCertainty
from zelo_site.pages.project.sizes import Sizes
from zelo_site.templatetags.figures import count, decimals

FEW_KEPT_S = 30
# The certainty that a top ten needs for training and publishing, where the run has set no other.
ENOUGH_CERTAINTY = 0.9


def score_needs(
    project: Project, sizes: Sizes, certainty: ProjectCertainty | None, *, enough: float | None, is_live: bool
) -> list[Need]:
    """Return the problems of a project's scores; those that running work may still solve are left out while it runs."""
    found = []
    if sizes.failed_fits:
        text = ngettext("%(n)s query could not be fitted", "%(n)s queries could not be fitted", sizes.failed_fits) % {
            "n": count(sizes.failed_fits)
        }
        found.append(
            _queries(project, "fits", text, _("see their pages for the reason; their previous scores stay"), "failed")
        )
    if sizes.islands:
        text = ngettext(
            "%(n)s query has disconnected comparisons", "%(n)s queries have disconnected comparisons", sizes.islands
        ) % {"n": count(sizes.islands)}
        remedy = _("scores of disconnected groups cannot be compared; judge more pairs")
        found.append(_queries(project, "islands", text, remedy, "islands"))
    if not is_live:
        found += _uncertain(project, certainty, ENOUGH_CERTAINTY if enough is None else enough)
    if not sizes.stale and (few := light_value(project, FEW, rows=sizes.most_rows, kept_s=FEW_KEPT_S)):
        text = ngettext(
            "%(n)s document has fewer than %(least)s comparisons",
            "%(n)s documents have fewer than %(least)s comparisons",
            few,
        ) % {"n": count(few), "least": FEW_COMPARISONS}
        remedy = _("the score intervals are wide; start another run")
        found.append(Need("few", Level.NOTE, text, todo=remedy, buttons=(_new_run(project),)))
    if waiting := sizes.waiting_for_people:
        text = ngettext("%(n)s pair waits for people", "%(n)s pairs wait for people", waiting) % {"n": count(waiting)}
        buttons = (
            Button(_("Compare"), reverse("compare", args=[project.slug])),
            Button(_("Open people"), reverse("people", args=[project.slug]), audience=Audience.READERS),
        )
        found.append(
            Need(
                "people", Level.NOTE, text, todo=_("compare the pairs yourself, or invite annotators"), buttons=buttons
            )
        )
    return found


def _queries(project: Project, key: str, text: str, remedy: str, shown: str) -> Need:
    address = f"{reverse('queries', args=[project.slug])}?show={shown}"
    return Need(
        key, Level.NOTE, text, todo=remedy, buttons=(Button(_("Show queries"), address, audience=Audience.READERS),)
    )


def _uncertain(project: Project, certainty: ProjectCertainty | None, enough: float) -> list[Need]:
    if certainty is None or certainty.mean >= enough:
        return []
    values = {"mean": decimals(certainty.mean, 2), "enough": decimals(enough, 2)}
    return [
        Need(
            "certainty",
            Level.NOTE,
            _("Top-10 certainty is %(mean)s; the top ten is reliable from %(enough)s.") % values,
            todo=_("judge more pairs of the queries of low certainty"),
            buttons=(_new_run(project, f"?certainty_below={enough:g}"),),
        )
    ]


def _new_run(project: Project, asked: str = "") -> Button:
    return Button(_("New run"), reverse("new-run", args=[project.slug]) + asked)
