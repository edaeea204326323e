"""The judges of a new run: those of the project as cards with their measured figures, and a row for each kind of new judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from django.db import connection
from django.forms import BoundField
from django.http import QueryDict
from django.utils.translation import gettext as _

from labeling.models import Annotator, Project
from labeling.plugins import Judge, registered
from workers.monitoring.endpoint_list import EndpointRow, choosable_endpoints
from workers.monitoring.judge_summary import JudgeFigures
from workers.monitoring.scorecard import BATCH_CALLS, RECENT_CALLS_OF
from zelo_site.pages.forms import PageForm, plugin_form, shown_form
from zelo_site.pages.judging.endpoint_choice import chooses_endpoint, judge_form, state_text
from zelo_site.pages.judging.new_run.order import AGAIN, MOST_ROWS, STORED, NamesForm, is_ordinary, plugin_of
from zelo_site.pages.project.figures import kept_judge_figures

MOST_CARDS = 24
RECENT_CALLS = 200


@dataclass(frozen=True, slots=True)
class Choice:
    """A plugin in the form; its field names start with `key`. It holds names instead of the class, which a
    template would call. `given` is the judge's chosen name; `is_first` marks the first judge of a cascade;
    `lacks_endpoint`: it needs an endpoint, and there is none.
    """

    key: str
    name: str
    label: str
    fields: list[BoundField]
    chosen: bool
    given: BoundField | None = None
    is_first: bool = False
    is_open: bool = False
    lacks_endpoint: bool = False


@dataclass(frozen=True, slots=True)
class JudgeCard:
    """A judge of the project. `seconds`: median of its latest calls; `endpoint`: the state of its endpoint in words."""

    key: str
    judge: Annotator
    plugin: str
    model: str
    mode: str
    endpoint: str
    endpoint_works: bool
    figures: JudgeFigures | None
    seconds: float | None
    chosen: bool
    is_first: bool

    @property
    def cost_each_micros(self) -> int | None:
        """The cost of an answer, in millionths of a dollar."""
        return round(self.figures.cost_each_micros) if self.figures and self.figures.cost_each_micros else None


def judge_cards(project: Project, values: QueryDict) -> list[JudgeCard]:
    """Return the project's judges that can be asked, chosen ones first, then the newest; at most two dozen."""
    plugins = {name: plugin for name, plugin in registered("judge").items() if cast("type[Judge]", plugin).can_be_asked}
    chosen = values.getlist("judge")
    judges = list(Annotator.objects.offered().filter(project=project, plugin__in=plugins).order_by("-id"))
    judges.sort(key=lambda judge: f"{STORED}{judge.pk}" not in chosen)
    judges = judges[: max(MOST_CARDS, len(chosen))]
    if not judges:
        return []
    figures = {each.annotator_id: each for each in kept_judge_figures(project)}
    seconds = _median_seconds([judge.pk for judge in judges])
    endpoints = {row.name: row for row in choosable_endpoints(project)}
    return [
        JudgeCard(
            key=(key := f"{STORED}{judge.pk}"),
            judge=judge,
            plugin=plugins[judge.plugin].label,
            model=_text(judge, "model"),
            mode=_text(judge, "mode"),
            endpoint=_endpoint(judge, endpoints),
            endpoint_works=_works(judge, endpoints),
            figures=figures.get(judge.pk),
            seconds=seconds.get(judge.pk),
            chosen=key in chosen,
            is_first=key == values.get("first"),
        )
        for judge in judges
    ]


def _text(judge: Annotator, option: str) -> str:
    value = judge.options.get(option)
    return value if isinstance(value, str) else ""


def _endpoint(judge: Annotator, endpoints: Mapping[str, EndpointRow]) -> str:
    name = _text(judge, "endpoint")
    if not name:
        return ""
    state = state_text(endpoints[name]) if name in endpoints else _("not defined")
    return f"{name} · {state}"


def _works(judge: Annotator, endpoints: Mapping[str, EndpointRow]) -> bool:
    name = _text(judge, "endpoint")
    return not name or (name in endpoints and endpoints[name].state in {"ok", "unused"})


_SECONDS = (
    RECENT_CALLS_OF + "SELECT judge, percentile_cont(0.5) WITHIN GROUP (ORDER BY seconds) FROM recent GROUP BY judge"
)


def _median_seconds(judges: Sequence[int]) -> dict[int, float]:
    with connection.cursor() as cursor:
        cursor.execute(_SECONDS, [list(judges), RECENT_CALLS, BATCH_CALLS])
        return {row[0]: float(row[1]) for row in cursor.fetchall()}


def judge_rows(project: Project, values: QueryDict, error: Exception | None) -> list[Choice]:
    """Return a row for a new judge of each plugin, and the added rows; chosen ones first."""
    plugins = {name: plugin for name, plugin in registered("judge").items() if cast("type[Judge]", plugin).can_be_asked}
    chosen = values.getlist("judge")
    added = [*values.getlist("row"), *chosen]
    keys = [key for key in dict.fromkeys([*plugins, *added]) if plugin_of(key) in plugins][: len(plugins) + MOST_ROWS]
    names = shown_form(NamesForm, values, error, keys=keys)
    places = {name: place for place, name in enumerate(plugins)}
    rows = []
    endpoints = choosable_endpoints(project)
    for key in keys:
        plugin = plugins[plugin_of(key)]
        # A row that the form has not sent shows the defaults; a form that was sent has a value for each of its fields.
        is_sent = any(name.startswith(f"judge-{key}-") for name in values)
        form = shown_form(
            judge_form(plugin, project, endpoints, prefix=f"judge-{key}"), values if is_sent else None, error
        )
        given = names.add(key)
        rows.append(
            Choice(
                key=key,
                name=plugin_of(key),
                label=form.title,
                fields=list(form),
                chosen=key in chosen,
                given=given,
                is_first=key == values.get("first"),
                is_open=AGAIN in key or _is_refused(form) or bool(given.errors),
                lacks_endpoint=not endpoints and chooses_endpoint(plugin),
            )
        )
    top = {row.name for row in rows if row.chosen}
    return sorted(rows, key=lambda row: (row.name not in top, places[row.name]))


def sampler_rows(chosen: str, values: QueryDict, error: Exception | None) -> list[Choice]:
    """Return a row for each design that can start a run."""
    found = []
    for name, plugin in registered("sampler").items():
        if is_ordinary(plugin):
            sent = values if any(field.startswith(f"sampler-{name}-") for field in values) else None
            form = shown_form(plugin_form(plugin, prefix=f"sampler-{name}"), sent, error)
            found.append(Choice(name, name, form.title, list(form), name == chosen, is_open=_is_refused(form)))
    return found


def _is_refused(form: PageForm) -> bool:
    return form.is_bound and not form.is_valid()


def with_another(project: Project, sent: QueryDict) -> QueryDict:
    """Return the form's values with one more chosen row, copied from the row or the card that `another` names."""
    asked, values = str(sent.get("another", "")), sent.copy()
    card = Annotator.objects.offered().filter(project=project, pk=asked[1:] if asked[1:].isdecimal() else 0).first()
    stored = card if asked.startswith(STORED) else None
    name = stored.plugin if stored is not None else plugin_of(asked)
    taken = {name, *values.getlist("row"), *values.getlist("judge")}
    new = next(key for number in range(2, len(taken) + 3) if (key := f"{name}{AGAIN}{number}") not in taken)
    if stored is not None:
        for option, value in stored.options.items():
            values.setlist(f"judge-{new}-{option}", [value])
    for field in [each for each in sent if each.startswith(f"judge-{asked}-")]:
        values[f"judge-{new}-{field.removeprefix(f'judge-{asked}-')}"] = str(sent[field])
    values.appendlist("row", new)
    kept = values.getlist("judge")
    if stored is not None:
        kept = [key for key in kept if key != asked]
    elif asked not in kept:
        kept.append(asked)
    values.setlist("judge", [*kept, new])
    return values
