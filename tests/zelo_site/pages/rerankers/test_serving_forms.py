"""The page of rerankers states in which form each is served, with the figures, and why the others are not."""

from __future__ import annotations

import pytest
from django.test import Client

from tests.factories.rows import make_project, make_user
from trainer.models import Reranker
from trainer.serving.forms.choice import Choice, MeasuredForm
from trainer.serving.registry import TRAINED

pytestmark = pytest.mark.django_db


def test_the_page_states_the_served_form_and_why_others_are_not(client: Client) -> None:
    measured = (
        MeasuredForm("fp32", 184.6, 1.0, 1.0, 0.0, ""),
        MeasuredForm("bf16", 56.8, 0.9978, 0.965, 0.0011, "Kendall's tau is 0.99780, expected at least 0.999"),
        MeasuredForm("openvino", 0.0, 0.0, 0.0, 0.0, "openvino is not installed"),
        MeasuredForm("bf16-refined", 86.3, 0.9999, 1.0, 0.0011, "", 0.0006),
    )
    choice = Choice("bf16-refined", "Some Processor, amx_bf16", "torch 2", 200, measured)
    owner = make_user("owner")
    project = make_project(owner=owner)
    manifest = {"forms": choice.as_dict()}
    Reranker.objects.create(
        project=project, name="fish", kind=TRAINED, location="there", checksum="c" * 64, manifest=manifest
    )
    client.force_login(owner)
    html = client.get(f"/p/{project.slug}/rerankers/").content.decode()
    for part in ("200 lists", "Some Processor, amx_bf16", "184.6", "0.9978", "96", "expected at least 0.999", "served"):
        assert part in html
    assert "openvino is not installed" in html and html.count('<span class="badge">served</span>') == 1
    Reranker.objects.update(manifest={"forms": {"form": "fp32"}})
    assert "Some Processor" not in client.get(f"/p/{project.slug}/rerankers/").content.decode()
