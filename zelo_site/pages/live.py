"""Fragments that a page asks for again and again; an unchanged one costs 204 and no change on screen."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string

# Stands in the rendered fragment where its own version goes.
VERSION_MARK = "@fragment-version@"
# Forms carry it under another mask each time that they are rendered, which changes nothing of what they say.
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="[^"]*"')


def rendered_fragment(request: HttpRequest, template: str, context: Mapping[str, Any]) -> tuple[str, str]:
    """The fragment with its version filled in, and that version: a hash of what it says."""
    html = render_to_string(template, {**context, "version": VERSION_MARK}, request=request)
    version = hashlib.sha256(CSRF_TOKEN.sub("", html).encode()).hexdigest()[:16]
    return html.replace(VERSION_MARK, version), version


def live_fragment(request: HttpRequest, template: str, context: Mapping[str, Any]) -> HttpResponse:
    """The fragment, or 204 where the browser (`?v=`) has this version already."""
    html, version = rendered_fragment(request, template, context)
    if request.GET.get("v") == version:
        return HttpResponse(status=204)
    return HttpResponse(html)
