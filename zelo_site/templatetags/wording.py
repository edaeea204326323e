"""Lets templates say a declared or stored text in the visitor's language."""

from __future__ import annotations

from django import template

from labeling import wording

register = template.Library()


@register.filter
def translated(text: str | None) -> str:
    """`labeling.wording.translated`; nothing for None."""
    return wording.translated(text or "")
