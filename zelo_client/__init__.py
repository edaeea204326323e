"""A typed client of zelo's REST interface; needs httpx and pydantic alone. Its README shows the whole path."""

from zelo_client.asynchronous import AsyncZelo
from zelo_client.errors import Failed, Problem, Unreachable, WaitedTooLong
from zelo_client.models import (
    Assignment,
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
)
from zelo_client.synchronous import Zelo

__all__ = [
    "Assignment",
    "AsyncZelo",
    "Board",
    "Comparison",
    "Estimate",
    "Failed",
    "Imported",
    "Instruction",
    "Job",
    "NextPairs",
    "Problem",
    "Project",
    "Query",
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
