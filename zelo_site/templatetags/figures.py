"""Number formats on pages: intervals, durations, money, counts, each in one format.

Only these filters use the separators of the visitor's language; Django's own output keeps the decimal point
(`zelo_site.i18n.formats`), because charts and forms also use it.
"""

from __future__ import annotations

import math

from django import template
from django.utils.translation import get_language
from django.utils.translation import gettext as _

from scoring.numerics.measures.resampling import Interval
from zelo_site.pages.charts.geometry import Z95

register = template.Library()

SEPARATORS = {"de": str.maketrans(",.", ".,")}


@register.filter
def localized(written: str) -> str:
    """Convert an English-formatted number to the separators of the visitor's language."""
    return written.translate(SEPARATORS.get(get_language() or "", {}))


@register.filter
def plain_number(value: float) -> str:
    """Format a number for a form field or a bar, independent of the language."""
    return f"{value:g}"


@register.filter
def cell(value: object) -> str:
    """Format a value of a table: whole numbers as counts, others with three decimals, texts as they are."""
    if isinstance(value, float):
        return decimals(value, 3)
    return count(value) if isinstance(value, int) else str(value)


@register.filter
def absolute(value: int) -> int:
    """Return a number without its sign."""
    return abs(value)


@register.filter
def percent_width(share: float) -> str:
    """Format a share in [0, 1] as a width in a drawing of 100 units."""
    return f"{100 * min(1.0, max(0.0, share)):.1f}"


@register.filter
def count(value: float | None) -> str:
    """Format a count: 12345 -> 12,345; None, or what a manifest does not hold, -> a dash."""
    return "–" if value is None or value == "" else localized(f"{value:,.0f}")


@register.filter
def decimals(value: float | None, places: int = 2) -> str:
    """Format with a fixed number of decimals and a true minus; None -> a dash."""
    return "–" if value is None or not math.isfinite(value) else localized(f"{value:z.{places}f}".replace("-", "−"))


@register.filter
def signed(value: float | None, places: int = 2) -> str:
    """Format with a sign, using a true minus."""
    if value is None or not math.isfinite(value):
        return "–"
    return localized(f"{value:+z.{places}f}".replace("-", "−"))


@register.filter
def span(own: Interval, places: int = 2) -> str:
    """Format an interval of a mean, or say briefly why there is none."""
    return _brief(own) or f"{decimals(own.low, places)} – {decimals(own.high, places)}"


@register.filter
def signed_span(own: Interval, places: int = 2) -> str:
    """Format an interval of a difference, or say briefly why there is none."""
    return _brief(own) or f"{signed(own.low, places)} … {signed(own.high, places)}"


def _brief(own: Interval) -> str:
    if own.unknown is None:
        return ""
    return _("one query") if own.unknown == "one query" else _("no spread")


@register.filter
def significant(value: float | None, digits: int = 3) -> str:
    """Format with this many significant digits."""
    return "–" if value is None or not math.isfinite(value) else localized(f"{value:.{digits}g}")


@register.filter
def margin(stderr: float | None, places: int = 0) -> str:
    """Format half the width of the 95 % interval from a standard error."""
    return "–" if stderr is None else localized(f"{Z95 * stderr:.{places}f}")


@register.filter
def percent(share: float | None) -> str:
    """Format a share in [0, 1] as whole per cent; only exact shares give 0 % or 100 %."""
    if share is None:
        return "–"
    whole = round(100 * share)
    if whole == 100 and share < 1:
        whole = 99
    if whole == 0 and share > 0:
        whole = 1
    return f"{whole}\N{NO-BREAK SPACE}%"


@register.filter
def small_percent(share: float | None) -> str:
    """Format a small share as per cent with one decimal."""
    return "–" if share is None else localized(f"{100 * share:.1f}\N{NO-BREAK SPACE}%")


@register.filter
def duration(seconds: float | None) -> str:
    """Format seconds in the largest suitable unit."""
    if seconds is None or not math.isfinite(seconds):
        return _("unknown")
    if seconds < 90:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 5400:
        return f"{round(seconds / 60)} min"
    if seconds < 172_800:
        return localized(f"{seconds / 3600:.1f} h")
    return _("%(n)s days") % {"n": localized(f"{seconds / 86_400:.1f}")}


@register.filter
def latency(seconds: float | None) -> str:
    """Format the time of a call: milliseconds below a second."""
    if seconds is None:
        return "–"
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.0005 else "< 1 ms"
    return localized(f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s")


@register.filter
def hours(value: float | None) -> str:
    """Format GPU-hours: whole hours if many, minutes if few."""
    if value is None or not math.isfinite(value):
        return "–"
    if value < 1:
        return _("%(n)s GPU-minutes") % {"n": max(1, math.ceil(60 * value))}
    return _("%(n)s GPU-hours") % {"n": localized(f"{value:,.1f}" if value < 10 else f"{value:,.0f}")}


@register.filter
def money(micros: int | None) -> str:
    """Format millionths of a dollar as dollars; small sums keep significant digits."""
    if micros is None:
        return "–"
    if 0 < micros < 50:  # four digits would show a price as none
        return localized("<$0.0001")
    if 0 < micros < 10_000:
        return localized(f"${micros / 1e6:.4f}")
    return localized(f"${micros / 1e6:,.2f}")


@register.filter
def pace(rate: float | None) -> str:
    """Format a rate per second, or per minute if it is slow."""
    if not rate:
        return _("%(n)s per second") % {"n": 0}
    if rate < 1:
        return _("%(n)s per minute") % {"n": f"{rate * 60:.0f}"}
    return _("%(n)s per second") % {"n": count(rate)}
