"""Deployments and logged requests for tests."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from trainer.models import Deployment, LoggedRequest


def make_logged_request(
    deployment: Deployment, *, query: str = "how do fish breathe", documents: Any = None, days: float = 30.0
) -> LoggedRequest:
    """A logged request that expires in `days`; `documents` are dicts as stored, or texts."""
    given = ["Gills take oxygen.", "Bread."] if documents is None else documents
    stored = [
        each if isinstance(each, dict) else {"text": each, "place": place, "score": 1.0 / place}
        for place, each in enumerate(given, start=1)
    ]
    return LoggedRequest.objects.create(
        deployment=deployment,
        reranker=deployment.current,
        query=query,
        documents=stored,
        expires_at=timezone.now() + timedelta(days=days),
    )
