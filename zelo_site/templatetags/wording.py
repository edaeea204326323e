"""Template filter that translates a declared or stored text."""

from __future__ import annotations

from django import template

from labeling import wording

register = template.Library()


@register.filter
def translated(text: str | None) -> str:
    """Return `labeling.wording.translated`, or an empty string for None."""
    return wording.translated(text or "")
