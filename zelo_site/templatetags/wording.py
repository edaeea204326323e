"""Template filter that translates a declared or stored text."""

from __future__ import annotations

from typing import Any

from django import template
from django.utils.text import Truncator

from labeling import wording
from labeling.stored_texts import StoredText, read_stored
from zelo_site.pages.scope import may_change
from zelo_site.security.job_errors import without_addresses
from zelo_site.templatetags.figures import count

register = template.Library()

NUMBERED = {"run", "training", "number"}  # parameters that name a row and count nothing


@register.filter
def translated(text: str | None) -> str:
    """Return `labeling.wording.translated` with counts as elsewhere on pages, or an empty string for None."""
    said = text if isinstance(text, StoredText) else read_stored(text or "")
    if isinstance(said, StoredText) and said.params:
        said = StoredText(said.msgid, {name: _shown(name, value) for name, value in said.params.items()})
    return wording.translated(said)


def _shown(name: str, value: Any) -> Any:
    counts = isinstance(value, int) and not isinstance(value, bool) and name not in NUMBERED
    return count(value) if counts else value


@register.filter
def listed(names: str) -> str:
    """Return names that are stored between commas with a space after each."""
    return ", ".join(name.strip() for name in names.split(","))


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
