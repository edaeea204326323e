"""Template filters for form fields: their errors, and the attributes that connect an input to its error."""

from __future__ import annotations

from django import template
from django.forms import BoundField
from django.utils.html import format_html
from django.utils.safestring import SafeString

register = template.Library()


@register.filter
def described(field: BoundField, help_id: str = "") -> SafeString | str:
    """Return an input's attributes: `aria-describedby` for its help and error, and `aria-invalid`."""
    ids = [help_id] if help_id else []
    if not field.errors:
        return format_html(' aria-describedby="{}"', help_id) if ids else ""
    return format_html(' aria-invalid="true" aria-describedby="{}"', " ".join([*ids, f"{field.auto_id}-error"]))


@register.filter
def error(field: BoundField) -> SafeString | str:
    """Return the markup of the field's errors; an empty text without errors."""
    if not field.errors:
        return ""
    return format_html('<span class="error" id="{}-error">{}</span>', field.auto_id, " ".join(map(str, field.errors)))
