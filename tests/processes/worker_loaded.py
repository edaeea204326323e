"""Loads what is slow before `worker_process` forks its workers, so that none of them does it again."""

from __future__ import annotations

import httpx  # noqa: F401

import workers.judges.openai.judge  # noqa: F401
import zelo_site.celery  # noqa: F401
from scoring import rating  # noqa: F401
from scoring.numerics.fitting.fit import compile_kernels

compile_kernels()
