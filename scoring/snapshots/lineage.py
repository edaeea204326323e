"""Describes the origin of a project's scores as plain values for the manifest of a snapshot.

Reads judgments, judges, fit, calibration and software versions in the transaction of the snapshot.
"""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

from django.db import connection
from django.db.models import Count, Max, Min

from labeling.models import Annotator, Judgment, Project
from scoring.models import Calibration, ProjectFit, QueryFit

PACKAGES = ("zelo", "numpy", "scipy", "pyarrow", "torch", "transformers", "peft", "sentence-transformers")


def lineage(project: Project) -> dict[str, Any]:
    """Return the origin of a project's scores."""
    live = Judgment.objects.live().filter(annotator__project=project)
    answers = dict(live.values_list("annotator").annotate(number=Count("pk")).order_by())
    fits = QueryFit.objects.filter(query__project=project, error="")
    versions = fits.aggregate(least=Min("judged_version"), most=Max("judged_version"))
    shared = ProjectFit.objects.filter(project=project).values(
        "version", "rater", "prior_precision", "cross_validated", "dispersion"
    )
    calibration = Calibration.objects.filter(project=project).values("version", "method", "answers", "ece")
    return {
        "slug": project.slug,
        "name": project.name,
        "judgments": sum(answers.values()),
        "judged_versions": [versions["least"], versions["most"]],
        "stale_queries": _stale(project),
        "judges": [
            _judge(annotator) | {"judgments": answers[annotator.pk]}
            for annotator in Annotator.objects.filter(pk__in=answers).order_by("id")
        ],
        "fit": {
            "rater": project.rater,
            "options": project.rater_options,
            "shared": shared.first(),
            "priors": sorted(set(fits.values_list("prior_precision", flat=True).distinct()[:20])),
        },
        "calibration": calibration.first(),
        "calibration_version": project.calibration_version,
    }


def _judge(annotator: Annotator) -> dict[str, Any]:
    """Return a judge's configuration. A person is a number, since snapshots must not contain names."""
    if annotator.is_person:
        return {"annotator": annotator.pk, "person": True}
    return {
        "annotator": annotator.pk,
        "person": False,
        "name": annotator.name,
        "plugin": annotator.plugin,
        "options": annotator.options,
        "prompt_hash": annotator.prompt_hash,
        "model_revision": annotator.model_revision,
        "config_hash": annotator.config_hash,
    }


def _stale(project: Project) -> int:
    """Return the number of queries with answers newer than their scores."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FROM labeling_query query JOIN scoring_queryfit fit ON fit.query_id = query.id "
            "WHERE query.project_id = %s AND query.judged_version > fit.judged_version",
            [project.pk],
        )
        return int(cursor.fetchone()[0])


def software() -> dict[str, str]:
    """Return software versions without importing the packages."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
