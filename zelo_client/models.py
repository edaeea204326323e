"""The server's responses as typed models. Fields that a newer server adds are kept as attributes."""

from __future__ import annotations

from abc import abstractmethod
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
    """Counts of the stored rows; for a file that the server leaves to a worker, the number of its job alone."""

    queries: int = 0
    documents: int = 0
    candidates: int = 0
    grades: int = 0
    message: str = ""
    job_id: int | None = None


class Work(Answer):
    """Work that the server does in the background; `state` is open, running, finished, failed or another one."""

    state: str

    @property
    @abstractmethod
    def address(self) -> str:
        """The path of the work's own resource, below `/api/v1`."""

    @property
    def counted(self) -> tuple[int, int]:
        """Done and total; total 0 while unknown."""
        return 0, 0

    @property
    def is_over(self) -> bool:
        return self.state in {"finished", "held_back", "failed", "cancelled"}

    @property
    def has_failed(self) -> bool:
        return self.state in {"failed", "cancelled"}

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
    def counted(self) -> tuple[int, int]:
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
    def counted(self) -> tuple[int, int]:
        return self.done, self.total


class Training(Work):
    """A training; `held_back`: trained, but the gate published nothing, see `gate` and `publish`."""

    training_id: int
    trainer: str
    error: str = ""
    reranker_ids: list[int]
    gate: dict[str, Any] = {}
    progress: dict[str, Any] = {}

    @property
    def address(self) -> str:
        return f"/trainings/{self.training_id}"

    @property
    def counted(self) -> tuple[int, int]:
        return int(self.progress.get("step") or 0), int(self.progress.get("steps") or 0)


class Query(Answer):
    id: int
    external_id: str
    text: str


class Score(Answer):
    candidate: int
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


class Comparison(Answer):
    """A live answer behind a score; `preference` is P(a is the more relevant), None for an answer without one."""

    document_a: str
    document_b: str
    annotator: str
    kind: str
    preference: float | None


class LimitAhead(Answer):
    """A cap or an operator's limit that a run would reach; `unit`: calls, tokens or cost_micros, `waits`: until the next day."""

    reason: str
    unit: str
    limit: int
    left: int
    expected: int
    most: int
    waits: bool


class Estimate(Answer):
    """The estimate of a run: `most_` figures are upper bounds, costs in millionths of a dollar; `limits` may end it earlier."""

    pairs: int
    calls: int
    most_calls: int
    tokens: int
    most_tokens: int
    cost_micros: int
    most_cost_micros: int
    seconds: float | None
    limits: list[LimitAhead] = []


class Side(Answer):
    query: str
    text: str
    metadata: dict[str, Any]


class Assignment(Answer):
    """A pair that is leased to the key's owner for `lease_s` seconds; `slot` names it in the answer."""

    slot: int
    left: Side
    right: Side
    lease_s: float


class NextPairs(Answer):
    """`state`: open, paused, instruction, quota_reached or nothing_left."""

    items: list[Assignment]
    state: str
    message: str


class Instruction(Answer):
    instruction: str
    seen: str
    is_read: bool
    answers: list[str]


class Snapshot(Answer):
    snapshot_id: int
    name: str
    rows: int
    checksum: str


class Interval(Answer):
    """A mean; `low` and `high` are None if the queries give no interval, and `no_interval` is the reason."""

    estimate: float
    low: float | None
    high: float | None
    no_interval: str | None = None


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
