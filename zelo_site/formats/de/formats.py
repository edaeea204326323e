"""German dates; numbers keep the decimal point, because charts and forms cannot use a comma."""

from __future__ import annotations

DECIMAL_SEPARATOR = "."
THOUSAND_SEPARATOR = ","
