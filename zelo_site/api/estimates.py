"""The shape of an estimate in every answer of the REST API."""

from __future__ import annotations

from ninja import Schema


class EstimateOut(Schema):
    """A figure with its 95 % interval; `count` is the number of observations."""

    value: float
    low: float
    high: float
    count: int
