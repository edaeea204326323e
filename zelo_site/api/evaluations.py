"""REST of the proof: start evaluations, add run files and external rerankers, read leaderboards and rank changes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from django.http import HttpRequest
from ninja import File, Router, Schema, Status
from ninja.errors import HttpError
from ninja.files import UploadedFile

from labeling.access.api_auth import owned_project_or_404, project_or_404
from labeling.importing.lines import RowError
from labeling.models import Project
from scoring.models import Snapshot
from scoring.numerics.measures.rankings import UnknownMetric
from trainer.evaluation.entries import EntryRefused, NameTaken, enter_outside, enter_run_file
from trainer.evaluation.external.rerankers import OutsideInvalid, UnknownOutside
from trainer.evaluation.leaderboard import NotEvaluated, Row, leaderboard
from trainer.evaluation.metrics import parse_measures
from trainer.evaluation.rank_changes import what_moved
from trainer.evaluation.system_orders import PAIRS, NoSystemOrders, OrderReference, system_orders
from trainer.models import Evaluation, Reranker
from workers.jobs.evaluation import EvaluationRefused, order_evaluation
from workers.models import Job
from zelo_site.api.projects import Text
from zelo_site.security.job_errors import JobError

router = Router(tags=["proof"])

Split = Literal["dev", "test", "heldout"]
Against = Literal["grades", "elo"]


class EvaluationIn(Schema):
    snapshot: int
    split: Split = "test"
    rerankers: list[int] | None = None


class EvaluationJobOut(Schema):
    id: int
    state: str
    done: int
    total: int
    message: JobError
    error: JobError


class OutsideIn(Schema):
    endpoint: Text


class EntryOut(Schema):
    id: int
    name: str
    kind: str


class IntervalOut(Schema):
    """`low` and `high` are null if one query, or queries without a spread, give no interval; `no_interval` is the reason."""

    estimate: float
    low: float | None
    high: float | None
    level: float
    count: int
    no_interval: str | None = None


class DifferenceOut(IntervalOut):
    name: str
    p_value: float
    verdict: str


class MatchedOut(Schema):
    """Queries and documents of the split that the row was measured on; `others`: a run's documents that are not candidates.

    `others_graded`: those of them with a grade, which count as retrieved. `equal`: queries in which all scores are equal.
    """

    queries: int
    of_queries: int
    documents: int
    of_documents: int
    others: int
    others_graded: int
    equal: int


class BoardRowOut(Schema):
    """`release` is `published`, `held_back`, or `published_anyway` for a student that the gate held back."""

    reranker: int
    name: str
    kind: str
    release: str
    metrics: dict[str, IntervalOut]
    domains: dict[str, dict[str, IntervalOut]]
    queries: int
    matched: MatchedOut | None
    against: dict[str, DifferenceOut]


class BoardOut(Schema):
    snapshot: int
    split: str
    reference: str
    measures: list[str]
    complete: bool
    queries: int
    rows: list[BoardRowOut]


class SystemOrdersOut(Schema):
    """Agreement between the orders of rerankers by two references; `left_out`: measured on too few queries.

    `documents`: how many of the queries' `candidates` each reference judges. `models`: the judges that gave LLM grades.
    """

    references: list[str]
    measure: str
    systems: list[str]
    left_out: list[str]
    queries: int
    candidates: int
    documents: dict[str, int]
    models: list[str]
    kendall: IntervalOut
    pearson: IntervalOut


class MovedOut(Schema):
    query_id: str
    domain: str
    before: float
    after: float


@router.post("/projects/{slug}/evaluations", response={202: EvaluationJobOut})
def post_evaluation(request: HttpRequest, slug: str, body: EvaluationIn) -> Status[Job]:
    """Measure rerankers (default: the baselines and all that the project has) on one split; `/jobs/{id}` returns the progress."""
    project = owned_project_or_404(request, slug)
    snapshot = _snapshot(request, project, body.snapshot)
    chosen = None
    if body.rerankers is not None:
        chosen = list(Reranker.objects.filter(project=project, pk__in=body.rerankers))
        if len(chosen) < len(set(body.rerankers)):
            raise HttpError(404, "some of these rerankers are not this project's; see its list of rerankers")
    try:
        return Status(202, order_evaluation(project, snapshot, body.split, rerankers=chosen, by=request.user))
    except EvaluationRefused as error:
        raise HttpError(409, str(error)) from error


@router.post("/projects/{slug}/entries/outside", response={201: EntryOut})
def post_outside(request: HttpRequest, slug: str, body: OutsideIn) -> Status[Reranker]:
    """Enter a reranker that the operator defined in ZELO_RERANKERS."""
    project = owned_project_or_404(request, slug)
    try:
        return Status(201, enter_outside(project, body.endpoint, by=request.user))
    except NameTaken as error:
        raise HttpError(409, str(error)) from error
    except (UnknownOutside, OutsideInvalid) as error:
        raise HttpError(422, str(error)) from error


@router.post("/projects/{slug}/entries/run", response={201: EntryOut})
def post_run_file(request: HttpRequest, slug: str, file: File[UploadedFile], name: Text = "") -> Status[Reranker]:
    """Enter a run file with the imported ids: query Q0 document rank score tag, or another form of docs/evaluation.md."""
    project = owned_project_or_404(request, slug)
    try:
        return Status(201, enter_run_file(project, name.strip() or str(file.name), file, by=request.user))
    except NameTaken as error:
        raise HttpError(409, str(error)) from error
    except (EntryRefused, RowError) as error:
        raise HttpError(422, str(error)) from error


@router.get("/projects/{slug}/leaderboard", response=BoardOut)
def get_leaderboard(
    request: HttpRequest,
    slug: str,
    snapshot: int | None = None,
    split: Split = "test",
    reference: Against = "grades",
    against: int | None = None,
    measures: str = "",
    complete: bool = False,
) -> dict[str, Any]:
    """The leaderboard of a split (default: of the latest snapshot), with 95 % intervals and paired differences to the
    baselines; `chosen` is the difference to the reranker `against`, if one is named.

    `measures`, separated by commas (default: ndcg@10,recall@10,mrr), are ndcg, ndcg_exp (exponential gain), recall,
    precision, map, mrr, rbp, err and success with cut-offs from 1 to 1000; the first orders the rows and is compared.
    With `complete`, queries that a row lacks count as 0, as with trec_eval's -c.
    """
    project = project_or_404(request, slug)
    try:
        board = leaderboard(
            project,
            _snapshot(request, project, snapshot),
            split,
            reference,
            compared_with=against,
            measures=parse_measures(measures),
            complete=complete,
        )
    except UnknownMetric as error:
        raise HttpError(422, str(error)) from error
    except NotEvaluated as error:
        raise HttpError(409, str(error)) from error
    return {
        "snapshot": board.snapshot.pk,
        "split": split,
        "reference": reference,
        "measures": board.measures,
        "complete": complete,
        "queries": board.queries,
        "rows": list(map(_board_row, board.rows)),
    }


def _board_row(row: Row) -> dict[str, Any]:
    """A row of the leaderboard as JSON."""
    return {
        "reranker": row.evaluation.reranker_id,
        "name": row.name,
        "kind": row.kind,
        "release": row.evaluation.reranker.release,
        "metrics": {metric: own.shown() for metric, own in row.metrics.items()},
        "domains": {
            domain: {metric: own.shown() for metric, own in metrics.items()} for domain, metrics in row.domains.items()
        },
        "queries": row.queries,
        "matched": row.matched,
        "against": {
            kind: own.test.difference.shown() | {"name": own.name, "p_value": own.test.p_value, "verdict": own.verdict}
            for kind, own in {**row.against, "chosen": row.to_chosen}.items()
            if own is not None
        },
    }


@router.get("/projects/{slug}/leaderboard/orders", response=SystemOrdersOut)
def get_system_orders(
    request: HttpRequest,
    slug: str,
    snapshot: int | None = None,
    split: Split = "test",
    measure: str = "",
    first: OrderReference = "grades",
    second: OrderReference = "elo",
    judge: int | None = None,
) -> dict[str, Any]:
    """Whether two references (human grades, Elo, LLM grades) order the evaluated rerankers alike: Kendall's tau-b and
    Pearson's r with 95 % bootstrap intervals over queries. Elo and the judges, which make references, are not counted.

    LLM grades are those of the judge with the id `judge`, or the mean of all models that graded a document.
    """
    project = project_or_404(request, slug)
    pair = next((each for each in PAIRS if set(each) == {first, second}), None)
    if pair is None:
        raise HttpError(422, f"first and second are both {first!r}; expected two different references")
    if judge is not None and "llm_grades" not in pair:
        raise HttpError(422, "judge chooses LLM grades, but neither first nor second is 'llm_grades'")
    try:
        (chosen, *more) = parse_measures(measure or "ndcg@10")
        if more:
            raise HttpError(422, f"measure is {measure!r}; expected one measure, such as ndcg@10")
        where = (project, _snapshot(request, project, snapshot), split)
        found = system_orders(*where, pair=pair, measure=chosen, model=judge)
    except UnknownMetric as error:
        raise HttpError(422, str(error)) from error
    except NoSystemOrders as error:
        raise HttpError(409, str(error)) from error
    return {
        "references": found.pair,
        "measure": found.measure,
        "systems": found.systems,
        "left_out": found.left_out,
        "queries": found.queries,
        "candidates": found.candidates,
        "documents": dict(zip(found.pair, found.documents, strict=True)),
        "models": found.models,
        "kendall": asdict(found.agreement.kendall),
        "pearson": asdict(found.agreement.pearson),
    }


@router.get("/projects/{slug}/leaderboard/moved", response=list[MovedOut])
def get_moved(
    request: HttpRequest,
    slug: str,
    snapshot: int | None = None,
    first: int = 0,
    second: int = 0,
    split: Split = "test",
    reference: Against = "grades",
) -> list[dict[str, Any]]:
    """The change of each query's NDCG@10 from one reranker to another, the largest loss first."""
    project = project_or_404(request, slug)
    found = Evaluation.objects.filter(
        project=project, snapshot=_snapshot(request, project, snapshot), split=split, reference=reference
    )
    by_reranker = {each.reranker_id: each for each in found.defer("scores")}
    if not {first, second} <= by_reranker.keys():
        raise HttpError(422, f"first is {first}, second {second}; expected two rerankers of that leaderboard")
    return [asdict(each) for each in what_moved(by_reranker[first], by_reranker[second])]


def _snapshot(request: HttpRequest, project: Project, snapshot_id: int | None) -> Snapshot:
    known = Snapshot.objects.visible_to(request.user).filter(projects=project)
    snapshot = known.first() if snapshot_id is None else known.filter(pk=snapshot_id).first()
    if snapshot is None:
        there = ", ".join(str(each.pk) for each in known) or "none; freeze scores first"
        raise HttpError(422, f"snapshot is {snapshot_id}; this project has: {there}")
    return snapshot
