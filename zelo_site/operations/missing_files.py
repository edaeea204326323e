"""Pages that need a stored file that is missing or damaged name it, instead of failing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from scoring.storage.files import StoredFileUnusable

log = logging.getLogger("django.request")


class MissingFilesMiddleware:
    """Answers 409 with the file's name and the remedies; the REST interface does so itself (`api.conventions.problems`)."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        """Render the page for StoredFileUnusable; any other error goes on."""
        if not isinstance(error, StoredFileUnusable):
            return None
        log.error("%s: %s", request.path, error)
        return render(request, "zelo/refused.html", {"text": str(error)}, status=409)
