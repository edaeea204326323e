"""The database's clock as a column default."""

from __future__ import annotations

from django.db import models


class ClockTimestamp(models.Func):
    """The database's clock at this moment; `Now` is that of the transaction's start."""

    function = "CLOCK_TIMESTAMP"
    template = "%(function)s()"
    output_field = models.DateTimeField()
