"""GET /favicon.ico: browsers ask for it where a page names no icon, such as a fragment or a file opened by itself."""

from __future__ import annotations

from pathlib import Path

from django.contrib.auth.decorators import login_not_required
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe

import zelo_site

MARK = Path(zelo_site.__file__).parent / "static" / "zelo" / "mark.svg"


@login_not_required
@require_safe
def icon(request: HttpRequest) -> HttpResponse:
    """Send zelo's mark."""
    return HttpResponse(MARK.read_bytes(), content_type="image/svg+xml")
