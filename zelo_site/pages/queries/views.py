"""Views of the list of queries: search, state, bounds and order, read from an address or saved by a user."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from django.db.models import Count, F, IntegerField, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, QueryDict
from django.utils.translation import gettext_lazy

from labeling.models import Candidate, Project, Query
from zelo_site.models import SavedView
from zelo_site.pages.forms import one_of, text_of

LONGEST_SEARCH, LONGEST_NAME, MOST_SAVED = 200, 60, 20
FILTERS = {
    "islands": gettext_lazy("disconnected"),
    "unrated": gettext_lazy("not scored"),
    "stale": gettext_lazy("fit pending"),
    "failed": gettext_lazy("fit failed"),
    "excluded": gettext_lazy("excluded"),
}


@dataclass(frozen=True, slots=True)
class Column:
    """A figure of the list: its field, its label, and whether the worst value, which a first click shows, is the highest.

    `scale`: the stored value of 1 in the reader's unit; `step` is the step of its bounds.
    """

    name: str
    path: str
    label: Any
    help: Any
    worst_is_high: bool = False
    scale: float = 1.0
    step: str = "0.01"

    @property
    def first_sort(self) -> str:
        return f"-{self.name}" if self.worst_is_high else self.name


COLUMNS: Mapping[str, Column] = {
    each.name: each
    for each in (
        Column("ndcg", "figures__ndcg", "NDCG@10", gettext_lazy("NDCG@10 of Elo against people’s grades")),
        Column(
            "certainty", "figures__certainty", gettext_lazy("certainty"),
            gettext_lazy("expected share of the true top 10 among the ten shown"),
        ),
        Column(
            "disagreement", "figures__disagreement", gettext_lazy("disagreement"),
            gettext_lazy("mean distance between the judges’ highest and lowest preference on a pair"), True,
        ),
        Column(
            "spend", "figures__spend_micros", gettext_lazy("spend ($)"),
            gettext_lazy("the query’s share of its judges’ spend"), True, 1e6, "any",
        ),
        Column(
            "gain", "figures__gain", gettext_lazy("student’s gain"),
            gettext_lazy("NDCG@10 of the latest student minus that of its base, on evaluated queries"),
        ),
        Column("judgments", "fit__judgments", gettext_lazy("judgments"), "", step="1"),
    )
}  # fmt: skip
PRESETS = (
    (gettext_lazy("worst NDCG@10"), "sort=ndcg"),
    (gettext_lazy("least certain"), "sort=certainty"),
    (gettext_lazy("judges disagree"), "sort=-disagreement"),
    (gettext_lazy("most expensive"), "sort=-spend"),
    (gettext_lazy("student loses"), "gain_max=0&sort=gain"),
)


@dataclass(frozen=True, slots=True)
class View:
    """A selection and an order of queries. `bounds`: (column, "min" or "max") to a value in the reader's unit."""

    search: str = ""
    state: str = ""
    sort: str = ""
    bounds: Mapping[tuple[str, str], float] = field(default_factory=dict)

    @classmethod
    def of(cls, sent: QueryDict) -> View:
        """Read a view from an address or a form; what is no valid value is left out."""
        bounds = {}
        for name in COLUMNS:
            for end in ("min", "max"):
                value = _number(text_of(sent, f"{name}_{end}", 30))
                if value is not None:
                    bounds[name, end] = value
        sorts = [sign + name for name in COLUMNS for sign in ("", "-")]
        return cls(
            text_of(sent, "q", LONGEST_SEARCH), one_of(sent, "show", FILTERS), one_of(sent, "sort", sorts), bounds
        )

    @property
    def parameters(self) -> dict[str, str]:
        """Return the view as URL parameters."""
        plain = {"q": self.search, "show": self.state, "sort": self.sort}
        bounds = {f"{name}_{end}": f"{value:g}" for (name, end), value in self.bounds.items()}
        return {name: value for name, value in {**plain, **bounds}.items() if value}

    @property
    def address(self) -> str:
        return urlencode(self.parameters)

    def without(self, *names: str) -> str:
        """Return the address without some parameters."""
        return urlencode({name: value for name, value in self.parameters.items() if name not in names})

    @property
    def is_filtered(self) -> bool:
        return bool(self.search or self.state or self.bounds)

    def applied(self, queries: QuerySet[Query]) -> QuerySet[Query]:
        """Return the selected queries in order: unknown values last, then by id."""
        queries = _in_state(queries, self.state)
        if self.search:
            queries = queries.filter(text__icontains=self.search)
        for (name, end), value in self.bounds.items():
            column = COLUMNS[name]
            queries = queries.filter(**{f"{column.path}__{'gte' if end == 'min' else 'lte'}": value * column.scale})
        if not self.sort:
            return queries.order_by("id")
        by = F(COLUMNS[self.sort.removeprefix("-")].path)
        return queries.order_by(
            by.desc(nulls_last=True) if self.sort.startswith("-") else by.asc(nulls_last=True), "id"
        )


def _number(text: str) -> float | None:
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) and abs(value) < 1e9 else None


def _in_state(queries: QuerySet[Query], state: str) -> QuerySet[Query]:
    if state == "excluded":
        return queries.filter(excluded_at__isnull=False)
    if state == "islands":
        return queries.filter(fit__islands__gt=1)
    if state == "unrated":
        return queries.filter(fit__isnull=True)
    if state == "stale":
        return queries.filter(fit__judged_version__lt=F("judged_version"))
    if state == "failed":
        return queries.filter(fit__error__gt="")
    return queries


def queries_of(request: HttpRequest, project: Project) -> QuerySet[Query]:
    """Return a project's queries with their fits and figures."""
    rows: QuerySet[Query] = Query.objects.visible_to(request.user).filter(project=project)
    return rows.select_related("fit", "figures")


def with_sizes(queries: QuerySet[Query]) -> QuerySet[Query]:
    """Return the queries with their candidate counts in `size`."""
    sizes = Candidate.objects.filter(query=OuterRef("pk")).order_by().values("query").annotate(n=Count("pk"))
    return queries.annotate(size=Coalesce(Subquery(sizes.values("n"), output_field=IntegerField()), 0))


# --- saved views --------------------------------------------------------------------------


def saved_views(user: Any, project: Project) -> list[SavedView]:
    """Return the user's own views of a project, by name."""
    return list(SavedView.objects.filter(user=user, project=project).order_by("name")[:MOST_SAVED])


def save_view(user: Any, project: Project, name: str, view: View) -> bool:
    """Keep a view under a name, replacing the one of that name; False if the user has as many as allowed."""
    own = SavedView.objects.filter(user=user, project=project)
    if not own.filter(name=name).exists() and own.count() >= MOST_SAVED:
        return False
    SavedView.objects.update_or_create(user=user, project=project, name=name, defaults={"address": view.address})
    return True


def forget_view(user: Any, project: Project, view_id: int) -> None:
    """Delete one of the user's views."""
    SavedView.objects.filter(user=user, project=project, pk=view_id).delete()
