"""Errors of jobs for readers who change nothing: without the addresses and paths of the operator's network.

An owner needs them to fix a judge or an endpoint; a viewer does not, and may be a stranger to the network.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from django.http import HttpRequest
from pydantic import AfterValidator, ValidationInfo

from labeling.access.members import role_of
from labeling.models import Project, Role

HIDDEN = "[address]"
_ADDRESS = re.compile(
    r"""\b[a-z][a-z0-9+.-]*://[^\s'"<>)\]]+      # a URL of any scheme
    | \[[0-9a-f:]*:[0-9a-f:.]*\](?::\d+)?         # IPv6 in brackets
    | (?<![\w:])(?:[0-9a-f]{0,4}:){3,7}[0-9a-f]{0,4}(?!\w)  # IPv6
    | (?<![\w:])(?:[0-9a-f]{1,4}:){1,6}:(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4})*)?(?![\w:])  # IPv6 with ::
    | \b\d{1,3}(?:\.\d{1,3}){3}(?::\d+)?\b        # IPv4
    | \b(?=[\d.-]*[a-z])[a-z0-9][a-z0-9.-]*:\d{2,5}\b  # host:port; no time of day
    | (?:(?<=\bhost=)|(?<=\bhost\ )|(?<=\bhostname\ )|(?<=\bhost\ name\ )|(?<=\bserver\ at\ )|(?<=\bvalid\ for\ ))
      (?:'[^']*'|"[^"]*")                         # a host that libraries quote
    | \b(?:[a-z0-9-]+\.)+(?:internal|intranet|corp|lan|local|localdomain|private|home\.arpa)\b  # names of private networks
    | (?<![\w.])(?:/[\w.@+-]+){2,}/?              # a path of two parts or more""",
    re.IGNORECASE | re.VERBOSE,
)


def without_addresses(text: str) -> str:
    """Return the text with HIDDEN in place of URLs, hosts that are recognised, IP addresses and absolute paths."""
    return _ADDRESS.sub(HIDDEN, text)


def _shown(text: str, info: ValidationInfo) -> str:
    """Return the error for the asking user; the project is the one in the address, or the field before this one."""
    request: HttpRequest | None = (info.context or {}).get("request")
    masked = without_addresses(text)
    if request is None or masked == text:
        return masked
    parameters: dict[str, Any] = request.resolver_match.kwargs if request.resolver_match else {}
    slug = parameters.get("slug") or info.data.get("project", "")
    owned: dict[str, bool] = request.__dict__.setdefault(
        "zelo_owned_slugs", {}
    )  # a list shows many errors of one project
    if slug not in owned:
        project = Project.objects.visible_to(request.user).filter(slug=slug).first()
        owned[slug] = project is not None and role_of(request.user, project) == Role.OWNER
    return text if owned[slug] else masked


# The type of a response's field that holds the error of a job.
JobError = Annotated[str, AfterValidator(_shown)]
