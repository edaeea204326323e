"""Parts of an input that its form knows: its error, and the attributes that tie the error to it."""

from __future__ import annotations

from django import template
from django.forms import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def described(field: BoundField, help_id: str = "") -> SafeString | str:
    """Attributes of an input: what describes it (its help, its error), and whether it is wrong."""
    ids = [help_id] if help_id else []
    if not field.errors:
        return format_html(' aria-describedby="{}"', help_id) if ids else ""
    return format_html(' aria-invalid="true" aria-describedby="{}"', " ".join([*ids, f"{field.auto_id}-error"]))


@register.filter
def error(field: BoundField) -> SafeString | str:
    """The field's errors, to stand below its input; nothing where there are none."""
    if not field.errors:
        return ""
    return format_html('<span class="error" id="{}-error">{}</span>', field.auto_id, " ".join(map(str, field.errors)))
