"""The sections about the proof: leaderboards with tests, domains, orders of systems, and what moved."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from labeling.models import Project
from scoring.models import Snapshot
from scoring.numerics.measures.multiple_tests import holm
from scoring.numerics.measures.rankings import Measure
from scoring.numerics.measures.resampling import Interval, PairedTest
from trainer.evaluation.leaderboard import Leaderboard, NotEvaluated, Row, leaderboard, measured_of
from trainer.evaluation.matching import covering_first
from trainer.evaluation.metrics import METRICS, REFERENCES, Reference, difference
from trainer.evaluation.rank_changes import Moved, what_moved
from trainer.evaluation.snapshot_comparison import Change, SnapshotComparison
from trainer.evaluation.system_orders import SystemOrders, all_system_orders
from zelo_site.pages.rerankers.orders import OrdersLine, orders_lines
from zelo_site.pages.rerankers.proof import named_with_release
from zelo_site.report.document import Block, Cell, Column, Line, Section, Table, Text, bars, numbers, words
from zelo_site.templatetags.figures import count, decimals, signed, span

RESAMPLES = 10_000
MOVED_SHOWN = 5
# The baseline of the tests: the first of these kinds that is on the leaderboard.
TESTED_AGAINST = ("first_stage", "bm25", "base", "judge")


def proof_sections(project: Project, snapshot: Snapshot | None, split: str) -> list[Section]:
    """Return a section per reference that was evaluated, or one that says that nothing was."""
    if snapshot is None:
        missing = Text(_("No snapshot is frozen yet; freeze one, then start an evaluation."), is_warning=True)
        return [Section("proof", _("Proof"), (missing,))]
    boards = [board for each in REFERENCES if (board := _board(project, snapshot, split, each))]
    if not boards:
        empty = Text(_("Nothing is evaluated on this split yet; start an evaluation first."), is_warning=True)
        return [Section("proof", _("Proof"), (empty,))]
    found = [_proof(board) for board in boards]
    found[0] = Section(found[0].key, found[0].title, (*found[0].blocks, *_orders(project, snapshot, split)))
    return found + ([moved] if (moved := _moved(boards[0])) else [])


def _board(project: Project, snapshot: Snapshot, split: str, reference: Reference) -> Leaderboard | None:
    try:
        return leaderboard(project, snapshot, split, reference)
    except NotEvaluated:
        return None


def _proof(board: Leaderboard) -> Section:
    by_grades = board.reference == "grades"
    title = _("Proof against human grades") if by_grades else _("Proof against Elo")
    blocks: list[Block] = [_results(board)]
    baseline = baseline_of(board)
    if baseline is not None and len(board.rows) > 1:
        blocks.append(_tests(board, baseline))
    if board.domains:
        blocks.append(_domains(board))
    return Section(f"proof-{board.reference}", title, tuple(blocks))


def _results(board: Leaderboard) -> Table:
    drawn = bars([_span(row.leading) for row in board.rows])
    lines = tuple(
        Line(named_with_release(row), (*(interval(own) for own in row.metrics.values()), *_matched(row)), bar)
        for row, bar in zip(board.rows, drawn, strict=True)
    )
    note = ngettext(
        "%(n)s query of the split %(split)s. Means with 95 %% bootstrap intervals over queries.",
        "%(n)s queries of the split %(split)s. Means with 95 %% bootstrap intervals over queries.",
        board.queries,
    ) % {"n": count(board.queries), "split": board.split}
    note += _without_interval(own for row in board.rows for own in row.metrics.values())
    if board.reference == "elo":
        note += " " + _(
            "The reference comes from the judges, so judges and Elo are favoured here. Documents without an Elo gain nothing."
        )
    head = numbers(*board.labels, _("matched queries"), _("matched documents"))
    return Table("", _("reranker"), head, lines, note)


def _matched(row: Row) -> tuple[str, str | Cell]:
    own = row.matched
    if own is None:
        return count(row.queries), "–"
    queries, documents = f"{own.queries} / {own.of_queries}", f"{count(own.documents)} / {count(own.of_documents)}"
    if not own.others:
        return queries, documents
    others = _("%(n)s not candidates, %(graded)s graded") % {
        "n": count(own.others),
        "graded": count(own.others_graded),
    }
    return queries, Cell(documents, f"+ {others}")


def baseline_of(board: Leaderboard) -> Row | None:
    """Return the row that the others are tested against."""
    kinds = (covering_first([row for row in board.rows if row.kind == kind], _queries) for kind in TESTED_AGAINST)
    return next((rows[0] for rows in kinds if rows), None)


def _queries(row: Row) -> int:
    return row.queries


def paired_tests(board: Leaderboard, baseline: Row) -> list[tuple[Row, PairedTest, float]]:
    """Return each other row with its paired randomisation test and Holm's p over these rows."""
    reference = measured_of(baseline.evaluation)
    found = []
    for row in board.rows:
        if row is baseline:
            continue
        test = difference(measured_of(row.evaluation), reference, METRICS[0], resamples=RESAMPLES)
        if test is not None:
            found.append((row, test))
    adjusted = holm([test.p_value for __, test in found]).tolist()
    return [(row, test, p) for (row, test), p in zip(found, adjusted, strict=True)]


def _tests(board: Leaderboard, baseline: Row) -> Table:
    rows = paired_tests(board, baseline)
    drawn = bars([_span(test.difference) for __, test, ___ in rows], zero=True)
    lines = tuple(
        Line(named_with_release(row), (*change_cells(test), p_text(adjusted), count(test.difference.count)), bar)
        for (row, test, adjusted), bar in zip(rows, drawn, strict=True)
    )
    note = _(
        "Paired over the queries that both rank: bootstrap interval of the mean difference, two-sided randomisation test "
        "with %(n)s random sign flips (seed 0), Holm’s correction over the rows of this table."
    ) % {"n": count(RESAMPLES)}
    note += _without_interval(test.difference for __, test, ___ in rows)
    title = _("Difference in %(measure)s to %(name)s") % {
        "measure": board.labels[0],
        "name": named_with_release(baseline),
    }
    return Table(title, _("reranker"), _tested(), lines, note)


def _tested() -> tuple[Column, ...]:
    return numbers(_("difference"), _("interval (95 %)"), "p", _("p (Holm)"), _("queries"))


def _domains(board: Leaderboard) -> Table:
    title = _("%(measure)s by domain") % {"measure": board.labels[0]}
    names, domains = [named_with_release(row) for row in board.rows], [each or "–" for each in board.domains]
    cells = [
        tuple(
            "–" if own is None else Cell(decimals(own.estimate, 3), f"{span(own, 3)}, {own.count}")
            for own in row.by_domain
        )
        for row in board.rows
    ]
    note = _("Mean, interval (95 %) and number of queries.")
    note += _without_interval(own for row in board.rows for own in row.by_domain if own is not None)
    if board.has_tall_domains:
        lines = tuple(map(Line, domains, zip(*cells, strict=True)))
        return Table(title, _("domain"), numbers(*names), lines, note)
    return Table(title, _("reranker"), numbers(*domains), tuple(map(Line, names, cells)), note)


def _orders(project: Project, snapshot: Snapshot, split: str) -> list[Block]:
    """Return how far each two references order the rerankers alike, and what the other pairs lack."""
    lines = orders_lines(all_system_orders(project, snapshot, split))
    rows = tuple(Line(_with_models(each), _agreement(each.found, each)) for each in lines if each.found)
    head = numbers(
        _("Kendall’s tau"),
        _("Pearson correlation"),
        _("rerankers"),
        _("queries"),
        _("judged documents"),
        _("candidates"),
    )
    note = _(
        "95 % bootstrap intervals over queries. Elo and the judges are not counted: references are made of them. Rerankers that lack a tenth of the queries are left out. LLM grades: the mean of the models that graded a document, or one model; a document is relevant from a third of the scale, and ungraded ones count as 0."
    )
    title = _("Do the references order the rerankers alike by %(measure)s?") % {
        "measure": Measure.parse(METRICS[0]).label
    }
    blocks: list[Block] = [Table(title, _("references"), head, rows, note)] if rows else []
    missing: dict[str, list[str]] = {}
    for each in lines:
        if not each.found:
            missing.setdefault(each.missing, []).append(each.name)
    return blocks + [Text(f"{'; '.join(names)}: {why}") for why, names in missing.items()]


def _with_models(line: OrdersLine) -> str:
    return f"{line.name} ({line.models})" if line.models else line.name


def _agreement(found: SystemOrders, line: OrdersLine) -> tuple[str | Cell, ...]:
    return (
        *(
            Cell(decimals(own.estimate), f"{decimals(own.low)} – {decimals(own.high)}")
            for own in (found.agreement.kendall, found.agreement.pearson)
        ),
        count(len(found.systems))
        + (f" ({_('without %(names)s') % {'names': ', '.join(found.left_out)}})" if found.left_out else ""),
        count(found.queries),
        line.documents,
        count(found.candidates),
    )


def _moved(board: Leaderboard) -> Section | None:
    """Return the queries that changed most from the baseline to the best trained reranker, else to the best row."""
    baseline = baseline_of(board)
    others = [row for row in board.rows if row is not baseline and row.kind != "elo"]
    rivals = covering_first(others, _queries)
    best = next((row for row in rivals if row.kind == "trained"), rivals[0] if rivals else None)
    if baseline is None or best is None:
        return None
    moved = what_moved(baseline.evaluation, best.evaluation)
    losses = [each for each in moved if each.change < 0]
    gains = [each for each in reversed(moved) if each.change > 0]
    text = _("From %(before)s to %(after)s: %(gains)s queries gained, %(losses)s lost, %(same)s stayed the same.") % {
        "before": named_with_release(baseline), "after": named_with_release(best), "gains": count(len(gains)),
        "losses": count(len(losses)), "same": count(len(moved) - len(gains) - len(losses)),
    }  # fmt: skip
    tables = [_moves(_("Largest losses"), losses), _moves(_("Largest gains"), gains)]
    return Section("moved", _("What moved"), (Text(text), *(table for table in tables if table.lines)))


def _moves(title: str, moved: Sequence[Moved]) -> Table:
    lines = tuple(
        Line(
            each.query_id,
            (each.domain or "–", decimals(each.before, 3), decimals(each.after, 3), signed(each.change, 3)),
        )
        for each in moved[:MOVED_SHOWN]
    )
    return Table(title, _("query"), (*words(_("domain")), *numbers(_("before"), _("after"), _("change"))), lines)


def comparison_sections(found: SnapshotComparison) -> list[Section]:
    """Return the sections on whether the later snapshot's data helped."""
    blocks: list[Block] = []
    if found.elo:
        note = _(
            "The Elo order of each snapshot against the human grades of the later one, on queries that both evaluate. "
            "A document without an earlier Elo was not retrieved earlier."
        )
        blocks.append(_changes(_("Elo against human grades"), found.elo, note))
    for each in found.students:
        names = {"before": each.before_name, "after": each.after_name}
        against = _("human grades") if each.reference == "grades" else "Elo"
        note = _("Measured on the split %(split)s of %(snapshot)s against %(reference)s.") % {
            "split": each.split, "snapshot": each.measured_on.name, "reference": against,
        }  # fmt: skip
        blocks.append(_changes(_("%(before)s and %(after)s") % names, each.changes, note))
    if not blocks:
        missing = _(
            "Nothing can be compared: the snapshots have no graded query in common in the splits test or heldout, and no split "
            "on which students of both were evaluated."
        )
        blocks.append(Text(missing, is_warning=True))
    return [Section("snapshots-proof", _("Did the newer data help?"), tuple(blocks))]


def _changes(title: str, changes: Sequence[Change], note: str) -> Table:
    drawn = bars([_span(each.test.difference) for each in changes], zero=True)
    lines = tuple(
        Line(
            _("all queries") if each.domain is None else each.domain or "–",
            (interval(each.before), interval(each.after), *change_cells(each.test), p_text(p), count(each.after.count)),
            bar,
        )
        for each, bar, p in zip(changes, drawn, holm([each.test.p_value for each in changes]).tolist(), strict=True)
    )
    note += _without_interval(own for each in changes for own in (each.before, each.after, each.test.difference))
    head = (*numbers(_("NDCG@10 before"), _("NDCG@10 after")), *_tested())
    return Table(title, _("domain"), head, lines, note)


def change_cells(test: PairedTest) -> tuple[str, str, str]:
    """Return difference, interval and p of a paired test."""
    own = test.difference
    between = span(own) if own.unknown else f"{signed(own.low, 3)} – {signed(own.high, 3)}"
    return signed(own.estimate, 3), between, p_text(test.p_value)


def p_text(p: float) -> str:
    """Return a p-value; small ones as a bound, since the test has a limited number of flips."""
    return f"< {decimals(0.001, 3)}" if p < 0.001 else decimals(p, 3)


def interval(own: Interval, places: int = 3) -> Cell:
    """Return a mean with its interval, or why it has none."""
    return Cell(decimals(own.estimate, places), span(own, places))


def _without_interval(means: Iterable[Interval]) -> str:
    """Return the sentence that explains why some of these means have no interval, with a blank before it."""
    if not any(own.unknown for own in means):
        return ""
    return " " + _("“One query” or “no spread” between queries: there is no interval.")


def _span(own: Interval) -> tuple[float, float, float]:
    return own.low, own.estimate, own.high
