"""German dates; numbers with a point: they stand in drawings and forms too, where a comma would break them."""

from __future__ import annotations

DECIMAL_SEPARATOR = "."
THOUSAND_SEPARATOR = ","
