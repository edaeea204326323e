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
    return project_text(context, job.error, length, job.project)


@register.simple_tag(takes_context=True)
def project_text(context: Any, text: str, length: int, project: Any) -> str:
    """Return the translated text, cut to `length`; only owners of the project see the addresses in it."""
    text = translated(text)
    masked = without_addresses(text)
    shown = text if masked != text and may_change(context["request"], project) else masked
    return Truncator(shown).chars(length)


@register.simple_tag(takes_context=True)
def failure_text(context: Any, text: str, length: int, is_owner: bool | None = None) -> str:
    """Return a failure's message, cut to `length`; only owners (by default: `may_change`) see the addresses in it."""
    sees = context.get("may_change") if is_owner is None else is_owner
    return Truncator(text if sees else without_addresses(text)).chars(length)
