"""Polled page fragments; the response is 204 if a fragment is unchanged."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

# Placeholder for the fragment's own version.
VERSION_MARK = "@fragment-version@"
# The CSRF token differs on every rendering, so it does not count as a change.
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="[^"]*"')


def rendered_fragment(request: HttpRequest, template: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """Return the fragment and its version, a hash of its content."""
    html = render_to_string(template, {**context, "version": VERSION_MARK}, request=request)
    version = hashlib.sha256(CSRF_TOKEN.sub("", html).encode()).hexdigest()[:16]
    return html.replace(VERSION_MARK, version), version


def live_fragment(request: HttpRequest, template: str, context: Mapping[str, Any]) -> HttpResponse:
    """Return the fragment, or 204 if the browser (`?v=`) has this version."""
    html, version = rendered_fragment(request, template, context)
    if request.GET.get("v") == version:
        return HttpResponse(status=204)
    return HttpResponse(html)
