"""What the server answers, typed. Fields that a newer server adds are kept as attributes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Answer(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True)


class Project(Answer):
    slug: str
    name: str
    queries: int
    documents: int
    candidates: int


class Imported(Answer):
    queries: int
    documents: int
    candidates: int
    grades: int
    message: str


class Work(Answer):
    """Something that goes on at the server; `state` is open, running, finished, failed or another one."""

    state: str

    @property
    def address(self) -> str:
        raise NotImplementedError

    @property
    def progress(self) -> tuple[int, int]:
        """Done and total; total 0 while unknown."""
        return 0, 0

    @property
    def is_over(self) -> bool:
        return self.state in {"finished", "failed", "cancelled"}

    @property
    def why(self) -> str:
        return str(getattr(self, "error", "") or getattr(self, "reason", ""))


class Run(Work):
    run_id: int
    pairs: int
    planned: int
    answered: int
    dead: int
    calls: int
    cost_micros: int
    reason: str = ""

    @property
    def address(self) -> str:
        return f"/runs/{self.run_id}"

    @property
    def progress(self) -> tuple[int, int]:
        return self.answered, self.planned


class Job(Work):
    job_id: int
    done: int
    total: int
    error: str = ""

    @property
    def address(self) -> str:
        return f"/jobs/{self.job_id}"

    @property
    def progress(self) -> tuple[int, int]:
        return self.done, self.total


class Training(Work):
    training_id: int
    trainer: str
    error: str = ""
    reranker_ids: list[int]
    steps: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return f"/trainings/{self.training_id}"


class Score(Answer):
    document: str
    elo: float | None
    elo_stderr: float | None
    relevance: float | None
    comparisons: int | None


class Scores(Answer):
    """A query's candidates, best Elo first."""

    query: int
    external_id: str
    text: str
    scores: list[Score]


class Snapshot(Answer):
    snapshot_id: int
    name: str
    rows: int
    checksum: str


class Interval(Answer):
    estimate: float
    low: float
    high: float


class BoardRow(Answer):
    name: str
    kind: str
    metrics: dict[str, Interval]


class Board(Answer):
    """Everything evaluated on a split, best first."""

    snapshot: int
    split: str
    rows: list[BoardRow]


class Reranker(Answer):
    id: int
    name: str
    model: str


class Ranked(Answer):
    index: int
    relevance_score: float
