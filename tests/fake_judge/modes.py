"""Options of the judge over HTTP in each of its modes."""

from __future__ import annotations

from labeling.records import FailureKind

EVERY_MODE = {
    "rate_limited": (FailureKind.RATE_LIMITED, True, 0.05),
    "rate_limited_ms": (FailureKind.RATE_LIMITED, True, 0.05),
    "rate_limited_silent": (FailureKind.RATE_LIMITED, True, None),
    "quota": (FailureKind.OVER_BUDGET, False, None),
    "payment_required": (FailureKind.OVER_BUDGET, False, None),
    "http_500": (FailureKind.UNAVAILABLE, True, None),
    "gpu_memory": (FailureKind.UNAVAILABLE, True, None),
    "http_503": (FailureKind.UNAVAILABLE, True, 0.05),
    "http_529": (FailureKind.UNAVAILABLE, True, None),
    "error_in_200": (FailureKind.UNAVAILABLE, True, None),
    "disconnect": (FailureKind.UNAVAILABLE, True, None),
    "cut_connection": (FailureKind.UNAVAILABLE, True, None),
    "unauthorized": (FailureKind.BAD_REQUEST, False, None),
    "bad_request": (FailureKind.BAD_REQUEST, False, None),
    "redirect": (FailureKind.BAD_REQUEST, False, None),
    "context_error": (FailureKind.CONTEXT_OVERFLOW, False, None),
    "content_filter_400": (FailureKind.CONTENT_FILTER, False, None),
    "content_filter": (FailureKind.CONTENT_FILTER, False, None),
    "hang": (FailureKind.TIMEOUT, True, None),
    "trickle": (FailureKind.TIMEOUT, True, None),
    "truncated_json": (FailureKind.UNPARSEABLE, True, None),
    "html": (FailureKind.UNPARSEABLE, True, None),
    "empty_choices": (FailureKind.UNPARSEABLE, True, None),
    "refusal": (FailureKind.REFUSAL, False, None),
    "refusal_text": (FailureKind.REFUSAL, False, None),
}


ONE_MODE = [
    ("logprob", "null_logprobs", FailureKind.LABEL_MASS, False),
    ("logprob", "null_logprob", FailureKind.LABEL_MASS, False),
    ("logprob", "nan_logprobs", FailureKind.LABEL_MASS, False),
    ("logprob", "low_label_mass", FailureKind.LABEL_MASS, False),
    ("logprob", "one_label", FailureKind.LABEL_MASS, False),
    ("reasoned", "prose", FailureKind.UNPARSEABLE, False),
    ("reasoned", "out_of_range", FailureKind.UNPARSEABLE, False),
    ("reasoned", "nan_score", FailureKind.UNPARSEABLE, False),
    ("reasoned", "mention", FailureKind.UNPARSEABLE, False),
    ("reasoned", "cut_answer", FailureKind.UNPARSEABLE, False),
    ("sampled", "prose", FailureKind.UNPARSEABLE, True),
]
