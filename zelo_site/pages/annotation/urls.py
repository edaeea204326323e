"""Addresses of the comparison screen, under p/<slug>/compare/."""

from __future__ import annotations

from django.urls import path

from labeling.annotation import http

urlpatterns = [
    path("next/", http.next_view, name="compare-next"),
    path("answer/", http.answer_view, name="compare-answer"),
    path("undo/", http.undo_view, name="compare-undo"),
    path("skip/", http.skip_view, name="compare-skip"),
    path("heartbeat/", http.heartbeat_view, name="compare-heartbeat"),
]
