"""Addresses of the comparison screen, under p/<slug>/compare/."""

from __future__ import annotations

from django.urls import path

from labeling import compare_api

urlpatterns = [
    path("next/", compare_api.next_view, name="compare-next"),
    path("answer/", compare_api.answer_view, name="compare-answer"),
    path("undo/", compare_api.undo_view, name="compare-undo"),
    path("skip/", compare_api.skip_view, name="compare-skip"),
    path("heartbeat/", compare_api.heartbeat_view, name="compare-heartbeat"),
]
