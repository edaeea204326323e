"""Watches judges while they work, and pauses one that becomes worse on known pairs, with the reason.

Whoever stores answers calls `watch_now_and_then`. A paused judge gets no questions from `workers.judging.queue.claim` until
somebody resumes it. The statistics are in `scoring.numerics.judges.cusum`.
"""

from __future__ import annotations

import logging
import time
from typing import cast

import numpy as np

from labeling.models import Annotator
from labeling.plugins import Judge, UnknownPlugin, get_plugin
from labeling.stored_texts import stored_text
from scoring.annotators.known_answers import judge_answers
from scoring.numerics.judges import cusum
from scoring.numerics.measures.sides import side
from workers.judging.pausing import pause_judge

log = logging.getLogger(__name__)

PAUSE_S = 30.0
_looked: dict[int, float] = {}

DRIFTED = {
    "answers": stored_text(
        "its accuracy on known pairs fell from %(before)s (its first answers) to %(now)s (the last %(since)s answers)"
    ),
    "queries": stored_text(
        "its accuracy on known pairs fell from %(before)s (its first queries) to %(now)s (the last %(since)s queries)"
    ),
}


def watch_now_and_then(annotator: Annotator) -> bool:
    """`watch_judge`, at most once in half a minute in this process."""
    if time.monotonic() - _looked.get(annotator.pk, -PAUSE_S) < PAUSE_S:
        return False
    _looked[annotator.pk] = time.monotonic()
    return watch_judge(annotator)


def watch_judge(annotator: Annotator) -> bool:
    """Pause the judge if it has drifted on known pairs; True where it did."""
    found = known_drift(annotator)
    if found is None or found.alarm is None:
        return False
    figures = {"before": f"{1.0 - found.baseline:.0%}", "now": f"{1.0 - found.recent:.0%}", "since": found.since}
    return pause_judge(annotator, DRIFTED[found.unit] % figures)


def known_drift(annotator: Annotator) -> cusum.Drift | None:
    """The state of the alarm over the answers on known pairs since the judge was last resumed; None with too few answers.

    A judge whose weights are part of its configuration cannot drift and is not watched.
    """
    if not _can_drift(annotator.plugin):
        return None
    answers = judge_answers(annotator, only_watched=True)
    known = np.isfinite(answers.truth) & (side(answers.truth) != 0)
    agreement = side(answers.preference[known]) * side(answers.truth[known])
    return cusum.watch_errors((1.0 - agreement) / 2.0, answers.query[known])


def _can_drift(plugin: str) -> bool:
    try:
        return cast("type[Judge]", get_plugin("judge", plugin)).can_drift
    except UnknownPlugin:
        return True
