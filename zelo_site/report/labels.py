"""The sections about the labels: data, judges, spend, agreement and calibration."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any, Protocol, TypeVar

import numpy as np
from django.utils.translation import gettext as _

from labeling.access.annotators import names_told_apart
from labeling.models import Project, UnmatchedGrade
from labeling.wording import translated
from scoring.annotators.agreement import Agreement
from scoring.annotators.people_agreement import Alphas, Coefficient, people_agreement
from scoring.annotators.replacing_people import JudgeReplacement, ReplacingPeople, replacing_people
from scoring.calibration.calibrate import project_calibration
from scoring.numerics.judges.judge_checks import Estimate
from scoring.numerics.judges.replacement import EPSILON, FEWEST_PEOPLE, replacement_test
from workers.budgets.spend import spend_of_project, totals_of_project, totals_of_run
from workers.models import Run
from workers.monitoring.data_summary import AnswerCounts, DomainCounts
from workers.monitoring.project_figures import AGREEMENT, ANSWERS, CARDS, DOMAINS, Figure
from workers.monitoring.scorecard import Scorecard
from zelo_site.report.document import Block, Cell, Facts, Line, Section, Table, Text, numbers, words
from zelo_site.templatetags.figures import count, decimals, money, percent, signed

Found = TypeVar("Found")


class Reader(Protocol):
    """Gives a figure of the report's project."""

    def __call__(self, figure: Figure[Found], /) -> Found | None: ...


def data_section(project: Project, counted: list[DomainCounts], answered: list[AnswerCounts]) -> Section:
    """Return queries, candidates and grades by domain, and the answers by kind."""
    rows = [astuple(each) for each in counted]
    sums = [sum(row[column] for row in rows) for column in range(1, 6)]
    domains = Table(
        "",
        _("domain"),
        numbers(
            _("queries"), _("candidates"), _("graded candidates"), _("queries with grades"), _("documents with Elo")
        ),
        tuple(Line(row[0] or "–", tuple(count(each) for each in row[1:])) for row in rows)
        + ((Line(_("all"), tuple(count(each) for each in sums)),) if len(rows) != 1 else ()),
        _("Grades of documents that are not candidates: %(n)s. They count for recall.")
        % {"n": count(UnmatchedGrade.objects.filter(project=project).count())},
    )
    if not answered:
        return Section("data", _("Data"), (domains, Text(_("No answers yet."))))
    answers = Table(
        _("Answers"),
        _("answered by"),
        (
            *numbers(_("preferences"), _("neither is relevant"), _("cannot judge"), _("pairs")),
            *words(_("from"), _("to")),
        ),
        tuple(
            Line(_("people") if row[0] else _("judges"), (*(count(each) for each in row[1:5]), *map(_day, row[5:7])))
            for row in map(astuple, answered)
        ),
    )
    return Section("data", _("Data"), (domains, answers))


def judges_section(cards: list[Scorecard], names: Mapping[int, str]) -> Section:
    """Return one row per judge: accuracy, consistency and biases with 95 % intervals."""
    columns = numbers(
        _("answers"), _("gold"), _("people"), _("other judges"), _("order flips"), _("position bias"), _("length bias"),
        _("cycles"),
    )  # fmt: skip
    rows = []
    for card in cards:
        shares = (card.gold, card.people, card.agreement, card.flips)
        leans = (card.position, card.length)
        cells = (count(card.answers), *map(_share, shares), *map(_lean, leans), _share(card.cycles))
        rows.append(Line(names.get(card.annotator_id, card.name), cells))
    note = _(
        "Shares with intervals (95 %): the same side as gold answers and grades, as people, and as the mean of the other judges; pairs whose "
        "winner changed with the order; triples in which each document beats the next. Biases: mean preference for the "
        "document shown first less one half, and logits per factor e in length. Measured on each judge’s latest answers."
    )
    table = Table("", _("judge"), columns, tuple(rows), note)
    return Section("judges", _("Judges"), (table,) if rows else (Text(_("No judge has answered yet.")),))


def spend_section(project: Project, names: Mapping[int, str]) -> Section:
    """Return calls, tokens and cost by judge and by run."""
    spent = spend_of_project(project.pk)
    total = totals_of_project(project.pk)
    by_judge = [
        Line(names.get(judge) or (_("checks, trials and teachings") if not judge else f"{_('judge')} {judge}"),
             (count(own.calls), count(own.tokens), money(own.cost_micros)))
        for judge, own in sorted(spent.items(), key=lambda item: (item[0] == 0, item[0]))
        if own.calls
    ]  # fmt: skip
    everything = (count(total.calls), count(total.input_tokens + total.output_tokens), money(total.cost_micros))
    runs = []
    for run in Run.objects.filter(project=project).order_by("id"):
        own = totals_of_run(run.pk)
        orders = _("both orders") if run.orders == "both" else _("one order")
        design = f"{run.sampler} × {run.allocation}, {orders}"
        spend = (count(own.calls), count(own.input_tokens + own.output_tokens), money(own.cost_micros))
        runs.append(Line(str(run.pk), (design, run.get_state_display(), _day(run.created_at), *spend)))
    columns = numbers(_("calls"), _("tokens"), _("cost"))
    blocks: list[Block] = [Table("", _("judge"), columns, (*by_judge, Line(_("all"), everything)))]
    if runs:
        head = (*words(_("design"), _("state"), _("date")), *columns)
        blocks.append(Table(_("Runs"), _("run"), head, tuple(runs)))
    return Section("spend", _("Spend"), tuple(blocks))


def agreement_section(project: Project, found: Agreement) -> Section:
    """Return the agreement of annotators, and of people where they answered."""
    blocks: list[Block] = [_agreement(found)]
    blocks += [
        Text(
            _("%(first)s and %(second)s make the same errors: their residuals correlate at %(r)s.")
            % {"first": each.first, "second": each.second, "r": signed(each.correlation)},
            is_warning=True,
        )
        for each in found.shared_errors
    ]
    people = people_agreement(project)
    if people.people:
        lines = [*_alphas(_("among people"), people.among_people), *_alphas(_("people and judges"), people.with_judges)]
        head = numbers(_("Krippendorff’s alpha"), _("interval (95 %)"), _("pairs"))
        blocks.append(Table(_("People"), _("level"), head, tuple(lines)))
    blocks.append(_replacement(replacing_people(project)))
    return Section("agreement", _("Agreement"), tuple(blocks))


def _replacement(found: ReplacingPeople) -> Table | Text:
    """Return the test of each judge against people, or the number of answers that it needs."""
    if not found.judges:
        needed = replacement_test(np.zeros(0), np.zeros((0, 0))).items_needed
        return Text(
            _(
                "May a judge replace people? No judge and person answered the same pairs. The Alternative Annotator Test needs "
                "%(people)s people with about %(items)s shared pairs each: plan spot checks."
            )
            % {"people": FEWEST_PEOPLE, "items": count(needed)}
        )
    head = (
        *words(_("result")),
        *numbers(_("winning rate ω"), _("advantage ρ"), _("people tested"), _("items needed per person")),
    )
    return Table(
        _("May a judge replace people?"), _("judge"), head, tuple(map(_tested_judge, found.judges)), _how_tested()
    )


def _how_tested() -> str:
    return _(
        "Alternative Annotator Test with ε = %(epsilon)s, Benjamini-Yekutieli at 5 %%: ω is the share of people against whom the judge holds, and it passes from 0.5; ρ is the probability that it agrees with the other people at least as well as one of them. It needs three people with thirty shared pairs each, drawn at random and answered independently. A dash under “items needed” means that no number of answers would make the judge pass."
    ) % {"epsilon": decimals(EPSILON, 1)}


def _tested_judge(each: JudgeReplacement) -> Line:
    own = each.result
    results = {None: _("too few people or answers"), True: _("passes"), False: _("fails")}
    figures = (decimals(own.winning_rate), decimals(own.advantage), count(len(own.people)), count(own.items_needed))
    return Line(each.name or _("panel (mean of the judges that count)"), (results[own.passes], *figures))


def _agreement(found: Agreement) -> Facts:
    split = _("%(share)s of %(n)s pairs") % {
        "share": percent(found.disagreement.value), "n": count(found.disagreement.count)
    }  # fmt: skip
    rows = ((_("Krippendorff’s alpha"), decimals(found.alpha)), (_("sampled pairs"), count(found.pairs)))
    return Facts((*rows, (_("annotators took opposite sides on"), split)))


def _alphas(title: str, found: Alphas) -> list[Line]:
    levels = ((_("which document"), found.nominal), (_("ordinal"), found.ordinal), (_("interval"), found.interval))
    return [Line(f"{title}, {name}", _coefficient(own)) for name, own in levels]


def _coefficient(own: Coefficient) -> tuple[str, ...]:
    span = "–" if own.low is None else f"{decimals(own.low)} – {decimals(own.high)}"
    return decimals(own.value), span, count(own.common)


def calibration_section(project: Project) -> Section:
    """Return the prior, the calibration of relevance with its reliability, and the common scale."""
    found = project_calibration(project)
    rows = [
        (_("prior precision"), decimals(found.prior_precision, 3)),
        (_("chosen by"), _("cross-validation") if found.prior_cross_validated else _("default")),
        (_("calibration version"), str(found.version)),
        (_("cross-query answers"), count(found.judgments)),
        (_("groups of comparable queries"), count(found.islands_count)),
    ]
    if not found.calibrated:
        missing = _("Relevance is not calibrated: %(reason)s.") % {"reason": translated(found.reason).rstrip(".")}
        return Section("calibration", _("Calibration"), (Facts(tuple(rows)), Text(missing, is_warning=True)))
    sources = {"grades": _("human grades"), "people": _("people’s answers"), "model grades": _("LLM grades")}
    counted = _("answers") if found.source == "people" else _("grades")
    rows += [
        (_("relevance calibrated by"), translated(found.method)),
        (_("against"), sources.get(found.source, found.source)),
        (counted, count(found.answers)),
        (_("ECE on held-out queries"), decimals(found.ece, 3)),
        (_("Brier score"), decimals(found.brier, 3)),
    ]
    lines = tuple(
        Line(
            f"{decimals(each.low)} – {decimals(each.high)}",
            (decimals(each.predicted, 3), decimals(each.observed, 3), count(each.count)),
        )
        for each in found.bins
        if each.count
    )
    table = Table(_("Reliability"), _("predicted relevance"), numbers(_("mean"), _("observed"), counted), lines)
    return Section("calibration", _("Calibration"), (Facts(tuple(rows)), table))


def label_sections(project: Project, read: Reader) -> list[Section]:
    """Return the sections about the labels, in order; `read` gives their figures, or None for those that nobody has measured."""
    cards, agreement, names = read(CARDS) or [], read(AGREEMENT), names_told_apart(project)
    counted, answered = read(DOMAINS), read(ANSWERS)
    is_counted = counted is not None and answered is not None
    return [
        data_section(project, counted or [], answered or []) if is_counted else _unmeasured("data", _("Data")),
        judges_section(cards, names),
        spend_section(project, names),
        agreement_section(project, agreement) if agreement else _unmeasured("agreement", _("Agreement")),
        calibration_section(project),
    ]


def _unmeasured(key: str, title: str) -> Section:
    missing = _("A worker is measuring these figures. Reload the page in a minute.")
    return Section(key, title, (Text(missing, is_warning=True),))


def _day(when: Any) -> str:
    return f"{when:%Y-%m-%d}" if when else "–"


def _with_interval(found: Estimate | None, form: Callable[[float], str]) -> str | Cell:
    return "–" if found is None else Cell(form(found.value), f"{form(found.low)} – {form(found.high)}")


def _share(found: Estimate | None) -> str | Cell:
    return _with_interval(found, percent)


def _lean(found: Estimate | None) -> str | Cell:
    return _with_interval(found, signed)
