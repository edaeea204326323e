"""Figures of deployments for pages and REST: how a shadow's orders differ from the answers."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Avg, Count, F

from trainer.models import Deployment, ShadowResult


@dataclass(frozen=True, slots=True)
class ShadowSummary:
    """Means over the compared requests: `tau` is Kendall's tau, `same_top` the part of the ten best that both have."""

    shadow: str
    answered_by: str
    requests: int
    tau: float | None
    same_top: float
    milliseconds: float
    shadow_milliseconds: float


def shadow_summaries(deployment: Deployment) -> list[ShadowSummary]:
    """One line for each pair of shadow and answering version, the most compared first."""
    rows = (
        ShadowResult.objects.filter(deployment=deployment)
        .order_by()
        .values(of=F("shadow__name"), against=F("reranker__name"))
        .annotate(
            requests=Count("id"),
            mean_tau=Avg("tau"),
            same=Avg("same_top"),
            took=Avg("milliseconds"),
            shadow_took=Avg("shadow_milliseconds"),
        )
        .order_by("-requests", "of", "against")
    )
    return [
        ShadowSummary(
            shadow=row["of"] or "",
            answered_by=row["against"] or "",
            requests=row["requests"],
            tau=row["mean_tau"],
            same_top=row["same"],
            milliseconds=row["took"],
            shadow_milliseconds=row["shadow_took"],
        )
        for row in rows
    ]
