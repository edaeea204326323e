"""The requests of both clients, without sending them: method, path, body, and the type of the answer."""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import TypeAdapter

from zelo_client.errors import Failed
from zelo_client.models import (
    Board,
    Comparison,
    Estimate,
    Imported,
    Instruction,
    Job,
    NextPairs,
    Project,
    Query,
    Ranked,
    Reranker,
    Run,
    Scores,
    Snapshot,
    Training,
    Work,
)

T = TypeVar("T")
API = "/api/v1"
BAR = 30
BUSY = "waiting or running already"  # of the detail of a 409


@dataclass(frozen=True)
class Request(Generic[T]):
    """A request; `kind` is the type of its answer, `inside` the field of the answer that holds it."""

    method: str
    path: str
    kind: Any
    json: Any = None
    content: Iterable[bytes] | None = None
    file: tuple[str, bytes] | None = None
    query: Mapping[str, Any] = field(default_factory=dict)
    inside: str = ""

    def arguments(self) -> dict[str, Any]:
        """Arguments of httpx's `request`."""
        given: dict[str, Any] = {"method": self.method, "url": self.path, "params": dict(self.query)}
        if self.file is not None:
            given["files"] = {"file": self.file}
        elif self.content is not None:
            given |= {"content": b"".join(self.content), "headers": {"Content-Type": "application/x-ndjson"}}
        elif self.json is not None:
            given["json"] = self.json
        return given

    def read(self, body: Any) -> T:
        """The typed answer. Raises pydantic.ValidationError if the server answers another shape."""
        found: T = TypeAdapter(self.kind).validate_python(body[self.inside] if self.inside else body)
        return found

    def after(self, link: str) -> Request[T] | None:
        """The request of the next page, which the header Link names; None after the last."""
        cursor = parse_qs(urlsplit(link).query).get("cursor")
        return replace(self, query={**self.query, "cursor": cursor[0]}) if cursor else None


def create_project(name: str, instruction: str) -> Request[Project]:
    return Request("POST", f"{API}/projects", Project, json={"name": name, "instruction": instruction})


def import_file(
    slug: str, file: str | Path | bytes, importer: str, options: Mapping[str, Any] | None
) -> Request[Imported]:
    name, data = ("upload", file) if isinstance(file, bytes) else (Path(file).name, Path(file).read_bytes())
    query = {"importer": importer} | ({"options": json.dumps(options)} if options else {})
    return Request("POST", f"{API}/projects/{slug}/imports", Imported, file=(name, data), query=query)


def upsert(slug: str, kind: str, rows: Iterable[Mapping[str, Any]]) -> Request[dict[str, int]]:
    lines: Iterator[bytes] = (json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)
    return Request("POST", f"{API}/projects/{slug}/{kind}/bulk", dict[str, int], content=lines)


def start_run(slug: str, judges: Sequence[str | Mapping[str, Any]], order: Mapping[str, Any]) -> Request[Run]:
    return Request("POST", f"{API}/projects/{slug}/runs", Run, json=_order(judges, order))


def estimate(slug: str, judges: Sequence[str | Mapping[str, Any]], order: Mapping[str, Any]) -> Request[Estimate]:
    return Request("POST", f"{API}/projects/{slug}/runs/estimate", Estimate, json=_order(judges, order))


def _order(judges: Sequence[str | Mapping[str, Any]], order: Mapping[str, Any]) -> dict[str, Any]:
    chosen = [{"plugin": judge} if isinstance(judge, str) else dict(judge) for judge in judges]
    return {"judges": chosen, **order}


def queries(slug: str, external_id: str) -> Request[list[Query]]:
    query = {"external_id": external_id} if external_id else {"limit": 1000}
    return Request("GET", f"{API}/projects/{slug}/queries", list[Query], query=query)


def comparisons(candidate: int) -> Request[list[Comparison]]:
    return Request("GET", f"{API}/candidates/{candidate}/comparisons", list[Comparison], query={"limit": 1000})


def instruction(slug: str) -> Request[Instruction]:
    return Request("GET", f"{API}/projects/{slug}/instruction", Instruction)


def confirm(slug: str, read: Instruction) -> Request[Instruction]:
    return Request("POST", f"{API}/projects/{slug}/instruction", Instruction, json={"seen": read.seen})


def next_pairs(slug: str) -> Request[NextPairs]:
    return Request("POST", f"{API}/projects/{slug}/assignments", NextPairs)


def answer(slug: str, slot: int, choice: str, given: Mapping[str, Any]) -> Request[NextPairs]:
    body = {"answer": choice, "key": str(uuid.uuid4()), **given}
    return Request("POST", f"{API}/projects/{slug}/assignments/{slot}/answer", NextPairs, json=body)


def publish(training: Training) -> Request[Training]:
    return Request("POST", f"{API}/trainings/{training.training_id}/publish", Training)


def scores(query_id: int) -> Request[Scores]:
    return Request("GET", f"{API}/queries/{query_id}/scores", Scores)


def freeze(slug: str, name: str, options: Mapping[str, Any]) -> Request[Snapshot]:
    return Request("POST", f"{API}/projects/{slug}/snapshots", Snapshot, json={"name": name, "options": dict(options)})


def train(slug: str, snapshot: Snapshot, trainer: str, options: Mapping[str, Any]) -> Request[Training]:
    body = {"snapshot_id": snapshot.snapshot_id, "trainer": trainer, "options": dict(options)}
    return Request("POST", f"{API}/projects/{slug}/trainings", Training, json=body)


def evaluate(slug: str, snapshot: Snapshot, split: str) -> Request[dict[str, Any]]:
    body = {"snapshot": snapshot.snapshot_id, "split": split}
    return Request("POST", f"{API}/projects/{slug}/evaluations", dict[str, Any], json=body)


def job(job_id: int) -> Request[Job]:
    return Request("GET", f"{API}/jobs/{job_id}", Job)


def leaderboard(slug: str, snapshot: Snapshot, split: str) -> Request[Board]:
    query = {"snapshot": snapshot.snapshot_id, "split": split}
    return Request("GET", f"{API}/projects/{slug}/leaderboard", Board, query=query)


def rerankers(slug: str) -> Request[list[Reranker]]:
    return Request("GET", f"{API}/projects/{slug}/rerankers", list[Reranker])


def rerank(model: str, query: str, documents: Sequence[str]) -> Request[list[Ranked]]:
    body = {"model": model, "query": query, "documents": list(documents)}
    return Request("POST", "/v1/rerank", list[Ranked], json=body, inside="results")


def again(work: Work) -> Request[Any]:
    """Reads the state of a run, training or job."""
    return Request("GET", f"{API}{work.address}", type(work))


def successful(work: Work) -> Any:
    """The work unless it failed or was cancelled. Raises Failed."""
    if work.has_failed:
        raise Failed(f"{work.address.strip('/')} is {work.state}: {work.why or 'see its page'}")
    return work


def draw(work: Work, *, shown: bool) -> None:
    """A progress bar on standard error, on one line of a terminal."""
    if not shown:
        return
    done, total = work.counted
    filled = BAR * done // total if total else 0
    counted = f"{done}/{total}" if total else ""
    end = "\n" if work.is_over else ""
    print(
        f"\r[{'#' * filled}{'.' * (BAR - filled)}] {counted} {work.state}\x1b[K", end=end, file=sys.stderr, flush=True
    )
