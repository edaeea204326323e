"""A typed client of zelo's REST interface; needs httpx and pydantic alone. docs/client.md shows the whole path."""

from zelo_client.asynchronous import AsyncZelo
from zelo_client.errors import Failed, Problem, Unreachable, WaitedTooLong
from zelo_client.models import Board, Imported, Job, Project, Ranked, Reranker, Run, Scores, Snapshot, Training
from zelo_client.synchronous import Zelo

__all__ = [
    "AsyncZelo",
    "Board",
    "Failed",
    "Imported",
    "Job",
    "Problem",
    "Project",
    "Ranked",
    "Reranker",
    "Run",
    "Scores",
    "Snapshot",
    "Training",
    "Unreachable",
    "WaitedTooLong",
    "Zelo",
]
