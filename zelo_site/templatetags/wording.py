"""Template filter that translates a declared or stored text."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.text import Truncator

from labeling import wording
from zelo_site.pages.scope import may_change
from zelo_site.security.job_errors import without_addresses

register = template.Library()


@register.filter
def translated(text: str | None) -> str:
    """Return `labeling.wording.translated`, or an empty string for None."""
    return wording.translated(text or "")


@register.simple_tag(takes_context=True)
def job_error(context: Any, job: Any, length: int) -> str:
    """Return the error of a job or training, cut to `length`; only owners see the addresses in it."""
    masked = without_addresses(job.error)
    shown = job.error if masked != job.error and may_change(context["request"], job.project) else masked
    return Truncator(shown).chars(length)


@register.simple_tag(takes_context=True)
def failure_text(context: Any, text: str, length: int) -> str:
    """Return a failure's message, cut to `length`; only owners see the addresses in it."""
    shown = text if context.get("may_change") else without_addresses(text)
    return Truncator(shown).chars(length)
