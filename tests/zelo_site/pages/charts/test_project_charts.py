"""Charts of stored figures say how old they are, and ask again until a worker has renewed them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from labeling.projects import create_project
from workers.models import ProjectFigure
from workers.monitoring.project_figures import CURVE

pytestmark = pytest.mark.django_db


def test_an_old_curve_has_its_age_and_is_asked_for_again(admin_client: Client) -> None:
    project = create_project("charts")
    point = {"judgments": 64, "micros": 3000, "ndcg": 0.37, "low": 0.27, "high": 0.48}
    old = timezone.now() - timedelta(minutes=9)
    ProjectFigure.objects.create(
        project=project, name=CURVE.name, value=[point, point | {"judgments": 128}], took_ms=5000, measured_at=old
    )
    address = reverse("chart", args=[project.slug, "ndcg"])
    shown = admin_client.get(address, headers={"HX-Request": "true"}).content.decode()
    assert f'datetime="{old.isoformat(timespec="microseconds")}"' in shown and f'hx-get="{address}"' in shown
    ProjectFigure.objects.update(measured_at=timezone.now())
    assert f'hx-get="{address}"' not in admin_client.get(address, headers={"HX-Request": "true"}).content.decode()
