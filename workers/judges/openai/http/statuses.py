"""Classifies what an endpoint replies instead of a completion: each failure with its kind, its message and its remedy.

`.client` uses it, and `.adaptation` reads which parameter a reply rejects. Imports no Django.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from labeling.records import FailureKind
from workers.endpoints.gates import Outcome
from workers.judges.openai.http.remedies import UNKNOWN, Server
from workers.judges.openai.reading.failures import storable

MOST_RETRY_AFTER_S = 3600.0
SHOWN_CHARACTERS = 400

# Gateway statuses for an unreachable server; the question may have caused any other server error.
UNREACHED = {502, 503, 504, 521, 522, 523, 529}
# Statuses below 500 by which a server says that it could not answer now: conflicts, TGI's failed generations, a lack of capacity.
BUSY = {409, 424, 425, 498, 499}
# Statuses for a wrong or blocked key, which fails every question.
DENIED = {401, 403}
# The server, or a gateway before it, gave up while a model may have been at work: such a call may be charged.
MAYBE_PAID = {408, 504, 524}

_TOO_LONG = re.compile(
    r"context[_ ](?:length|window|size)|max(?:imum)?[_ ](?:context|model|(?:prompt|input|sequence)[_ ](?:length|tokens))|max_model_len|range of input length|too many (?:input )?tokens|"
    r"(?:prompt|input|request) (?:is )?too (?:long|large)|exceeds? the (?:available|maximum|model)|"
    r"`?max_new_tokens`? must be <=|must be at least \d+, got -\d|longer than the model|exceed_context_size",
    re.IGNORECASE,
)
# Server errors that a prompt or an answer beyond the context causes: llama-cpp-python writes its scores behind the end of
# their array (its issue 657), torch indexes behind the last position. Narrower than above: these must be no outage.
_TOO_LONG_500 = re.compile(
    r"could not (?:be )?broadcast|cannot broadcast|exceeds? (?:the )?context|context[_ ](?:length|window|size) (?:of|is|has been|was|exceed)|"
    r"(?:maximum|model'?s?) context length|exceed_context_size|exceeds? the (?:available|maximum) context|"
    r"longer than the (?:model|maximum|specified maximum|context)|prompt is too long|too many (?:input )?tokens|"
    r"out of bounds for (?:axis|dimension)|index out of range in self|size of tensor a|input length exceeds|"
    r"could not find a kv slot|llama_decode returned 1\b|\bn_ctx\b",
    re.IGNORECASE,
)
# A parameter beyond its own limit, which is no matter of the context.
_VALUE_TOO_LARGE = re.compile(
    r"\b(?:top_logprobs|logprobs|top_n_tokens|n|seed)\b[^.]{0,40}?exceeds? the (?:maximum|available)", re.IGNORECASE
)
_FILTERED = re.compile(
    r"content[_ ](?:filter|policy|management)|responsible_?ai|moderation|safety (?:system|filter)|flagged|"
    r"violat\w+ (?:\w+ ){0,3}?(?:usage|content|safety|acceptable use) (?:guidelines?|polic(?:y|ies)|rules?)",
    re.IGNORECASE,
)
# A server error whose body is the validation error of a request (FastAPI, pydantic).
_VALIDATION = re.compile(
    r"validation error|['\"]?loc['\"]?\s*[:=]\s*[(\[]|input should be|extra (?:inputs|fields) (?:are )?not permitted|"
    r"field required|extra_forbidden|literal_error|unprocessable|unexpected keyword argument",
    re.IGNORECASE,
)
_LOCATIONS = re.compile(r"['\"]?loc['\"]?\s*[:=]\s*[(\[]([^)\]]*)[)\]]")
_PARAMETERS = re.compile(
    r"\b(max_completion_tokens|max_output_tokens|max_tokens|temperature|response_format|json_schema|json_object|top_logprobs|logprobs|"
    r"top_n_tokens|seed|stream)\b"
)
_NO_SYSTEM = re.compile(
    r"system (?:role|messages?|prompts?|instructions?) (?:is |are )?(?:not |un)(?:supported|allowed|permitted|enabled)|"
    r"\brole\b.{0,40}(?:not support|n['o]t allow|unsupported|invalid).{0,20}['\"]?system\b|developer instruction is not enabled|"
    r"unknown role\W{0,3}system\b|conversation roles must alternate|only user(?: and assistant| or assistant|,? assistant)? roles? (?:is|are) supported",
    re.IGNORECASE,
)
_REJECTED = re.compile(
    r"unsupported|not (?:yet )?support|n['o]t support|unknown|unrecognized|unexpected|not (?:allowed|permitted|available|"
    r"implemented)|invalid|must be|should be|only (?:the )?default|cannot be|can't be|deprecated|greater than|less than|"
    r"range|logits_all|keyerror",
    re.IGNORECASE,
)
# Servers that cannot compile the JSON schema, or enforce none: llama.cpp ("failed to parse grammar", "JSON schema conversion
# failed"), vLLM and SGLang (xgrammar, guided decoding), TGI, Ollama.
_GRAMMAR = re.compile(
    r"\bgrammar|json[-_ ]?schema|schema conversion|guided[-_ ](?:decoding|json|choice|grammar)|structured[-_ ]outputs?|"
    r"response[-_ ]format|format\.schema|propert(?:y|ies) ['\"]?(?:maximum|minimum|description|additionalProperties)\b|constrained decoding|xgrammar|outlines|lm-format-enforcer|unrecognized schema",
    re.IGNORECASE,
)
# A key that the provider does not know, regardless of the status (Gemini: 400 with API_KEY_INVALID).
_BAD_KEY = re.compile(
    r"api[-_ ]?key[-_ ](?:not[-_ ]valid|invalid|expired|not[-_ ]found|missing|disabled|revoked)|(?:invalid|incorrect|wrong|missing|expired|"
    r"unknown|revoked|disabled)[-_ ](?:api[-_ ]?key|x-api-key|authentication|authorization|bearer|access token|token provided)|"
    r"(?:no|without) api[-_ ]?key|authentication_error|\bunauthenticated\b|missing or invalid authori[sz]ation",
    re.IGNORECASE,
)
# An account that may not ask until somebody pays, or at all. Gemini says "exceeded your current quota" for its rate limits, too.
_NO_CREDIT = re.compile(
    r"insufficient[-_ ](?:quota|balance|credits?|funds)|billing[-_ ](?:hard[-_ ]limit|not[-_ ]active|disabled)|(?:hard|spending|spend|credit|"
    r"monthly|usage|budget)[-_ ]limit[-_ ](?:has been |was )?(?:reached|exceeded)|credit balance is too low|out of credits|"
    r"(?:no|not enough|insufficient|add(?: more)?) credits?|payment required|exceeded[-_ ](?:your|the)[-_ ]?(?:current|monthly)? (?:quota|budget)|"
    r"check your (?:plan and )?billing|balance is (?:insufficient|not enough|too low)|arrears|quota_exceeded|key limit exceeded|"
    r"exceeded[-_ ]?budget|budget[-_ ](?:has been |was )?exceeded",
    re.IGNORECASE,
)
_DEACTIVATED = re.compile(
    r"account[-_ ]?(?:has been |is |was )?(?:deactivated|suspended|disabled|terminated|blocked|banned|not active|inactive|closed)|"
    r"(?:associated with this api key|your account|organi[sz]ation|project) (?:has been|is|was) "
    r"(?:deactivated|suspended|disabled|terminated|blocked|banned|restricted|not active|archived)|access_terminated|billing_not_active",
    re.IGNORECASE,
)
_RATE = re.compile(
    r"retrydelay|per[-_ ]?(?:minute|second|day)|\brpm\b|\btpm\b|requests? limit|rate[-_ ]?limit", re.IGNORECASE
)
# Servers that limit the rate with another status than 429, such as Amazon's 400 with ThrottlingException.
_THROTTLED = re.compile(r"\bthrottl|too[-_ ]?many[-_ ]?requests|throttling_?exception", re.IGNORECASE)
_WAIT = re.compile(
    r"\b(?:retry|try again)(?: your request)? (?:after|in) (?:(?P<m>\d{1,4}) ?m(?:in(?:utes?)?)?,? ?)?(?:(?P<s>\d{1,6}(?:\.\d+)?) ?(?P<ms>m?)s(?:ec(?:onds?)?)?)?\b|"
    r"\"retryDelay\": ?\"(?P<delay>\d{1,6}(?:\.\d+)?)s\"",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(
    r"model_not_found|deployment ?not ?found|unknown model|no such model|(?:model|deployment)\b.{0,200}?"
    r"(?:not (?:found|exist|loaded)|does not exist|doesn't exist)|invalid model",
    re.IGNORECASE | re.DOTALL,
)
_GATEWAY_PAGE = re.compile(
    rb"bad gateway|gateway time-?out|service (?:temporarily )?unavailable|\b50[234]\b", re.IGNORECASE
)


_STATUS_OF_CODE = {
    "invalid_api_key": 401, "authentication_error": 401, "permission_error": 403, "invalid_request_error": 400,
    "context_length_exceeded": 400, "model_not_found": 404, "insufficient_quota": 429, "rate_limit_exceeded": 429,
}  # fmt: skip


def error_of(body: Mapping[str, Any]) -> Any:
    """The error that a body without an answer reports under a status of success; None if it reports none."""
    if body.get("choices"):
        return None
    is_error = isinstance(body.get("message"), str) and not {"response", "done", "content", "finish_reason"} & set(body)
    return body.get("error") or (dict(body) if is_error or body.get("detail") else None)


def status_of_error(error: Any) -> int:
    """The status that an error under HTTP 200 stands for: that of its code, of its type, or 502."""
    if not isinstance(error, dict):
        return 404 if _NO_MODEL.search(str(error)) else 502
    for stated in (error.get("code"), error.get("status"), error.get("type")):
        if isinstance(stated, str) and stated in _STATUS_OF_CODE:
            return _STATUS_OF_CODE[stated]
        number = int(stated) if isinstance(stated, str) and stated.isascii() and stated.isdigit() else stated
        if isinstance(number, int) and not isinstance(number, bool) and 400 <= number < 600:
            return number
    return 404 if _NO_MODEL.search(str(error.get("message") or error.get("detail"))) else 502


class CallFailed(Exception):
    """A call without a completion; `paid`: whether it may have been charged; `reached`: whether a server had accepted the
    request; `denied`: whether the key was rejected; `rejects`: the parameters of the request that the endpoint rejects.
    """

    def __init__(
        self,
        kind: FailureKind,
        message: str,
        *,
        retryable: bool,
        retry_after_s: float | None = None,
        paid: bool = False,
        reached: bool = True,
        denied: bool = False,
        rejects: Rejection | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.retryable = retryable
        self.retry_after_s = retry_after_s
        self.paid = paid
        self.reached = reached
        self.denied = denied
        self.rejects = rejects


class CallNotMade(CallFailed):
    """No call was made, because it could not start before the deadline of the batch."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """A rejected request: the names of the parameters that the error names, and its text."""

    parameters: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class ErrorBody:
    """An error in any of the usual shapes; `parameters`: what its `param` or `loc` fields name."""

    code: str
    text: str
    parameters: tuple[str, ...] = ()


def outcome_of(failure: CallFailed) -> Outcome:
    """The state of the endpoint after a failed call."""
    if failure.kind is FailureKind.RATE_LIMITED:
        return Outcome.RATE_LIMITED
    if failure.kind in {FailureKind.TIMEOUT, FailureKind.UNAVAILABLE, FailureKind.OVER_BUDGET} or failure.denied:
        return Outcome.OUTAGE
    return Outcome.ANSWERED


def failure_of_status(
    status: int, headers: Mapping[str, str], content: str, *, server: Server = UNKNOWN, model: str = ""
) -> CallFailed:
    """The failure for a status other than 200; the body distinguishes overflow, filter, quota and rejected parameters."""
    error = read_error(content)
    said = f"{error.code} {error.text}"
    shown = f"HTTP {status}: {error.text[:SHOWN_CHARACTERS]}"
    is_denied = status in DENIED or (status < 500 and _BAD_KEY.search(f"{said} {content[:4000]}") is not None)

    def failed(
        kind: FailureKind, remedy: str, *, retryable: bool = False, rejects: Rejection | None = None
    ) -> CallFailed:
        told = retry_after_s(headers) if retryable else None
        after = _stated_wait(content) if told is None and retryable else told
        return CallFailed(
            kind,
            f"{shown}; {remedy}",
            retryable=retryable,
            retry_after_s=after,
            paid=status in MAYBE_PAID,
            reached=status not in UNREACHED and not is_denied and kind is not FailureKind.OVER_BUDGET,
            denied=is_denied and kind is FailureKind.BAD_REQUEST and rejects is None,
            rejects=rejects,
        )

    if trouble := _account_trouble(status, said, content):
        return failed(FailureKind.OVER_BUDGET, trouble)
    if status == 429 or (status in {400, 403} and _THROTTLED.search(said[:200])):
        return failed(FailureKind.RATE_LIMITED, "lower rpm or max_concurrency of the endpoint", retryable=True)
    if status == 408:
        return failed(FailureKind.TIMEOUT, "the server gave up waiting; lower max_concurrency", retryable=True)
    if 300 <= status < 400:
        shown = f"HTTP {status}: the endpoint redirects, and redirects are not followed"
        return failed(FailureKind.BAD_REQUEST, f"correct base_url{_target(headers)}")
    too_long = _TOO_LONG if status < 500 else _TOO_LONG_500
    is_of_value = _VALUE_TOO_LARGE.search(error.text) is not None
    if status == 413 or (too_long.search(said) and not is_of_value):
        return failed(
            FailureKind.CONTEXT_OVERFLOW,
            f"lower max_document_tokens of the judge (and max_output_tokens in the mode reasoned), {server.longer_context}",
        )
    if status in {400, 403, 422} and _FILTERED.search(said):
        return failed(FailureKind.CONTENT_FILTER, "use a judge without that filter")
    if status == 403 and (rejects := _rejection(400, error)) is not None:
        return failed(
            FailureKind.BAD_REQUEST, _rejected(", ".join(rejects.parameters), rejects, server), rejects=rejects
        )
    if is_denied and status not in {404, 429}:
        return failed(FailureKind.BAD_REQUEST, "correct the key that the endpoint's definition names, then retry")
    if status in {404, 405} or (status < 500 and _NO_MODEL.search(said)):
        return failed(FailureKind.BAD_REQUEST, _not_found(said, content, model))
    rejects = _rejection(status, error)
    if rejects is not None:
        names = ", ".join(rejects.parameters) or "the field that the message names"
        return failed(FailureKind.BAD_REQUEST, _rejected(names, rejects, server), rejects=rejects)
    if status >= 500 or status in BUSY:
        remedy = f"see the server's log; some servers also fail so on an unknown model (here {model!r})"
        return failed(FailureKind.UNAVAILABLE, remedy, retryable=True)
    return failed(FailureKind.BAD_REQUEST, "correct the judge's options or the endpoint's definition, then retry")


def _account_trouble(status: int, said: str, content: str) -> str:
    """The remedy where the provider refuses the account rather than the request, regardless of the status; "" otherwise."""
    if status >= 500 or status == 413:
        return ""
    if _DEACTIVATED.search(said):
        return "the provider has deactivated the account or its billing; resolve that with the provider, or use another account's key, then retry"
    is_rate = status == 429 and _RATE.search(content) is not None and "insufficient_quota" not in said
    if status == 402 or (status in {400, 401, 403, 429} and _NO_CREDIT.search(said) and not is_rate):
        return "add credit at the provider or raise its spending limit, then retry"
    return ""


def _target(headers: Mapping[str, str]) -> str:
    return f" (the reply points to {headers['location'][:200]!r})" if headers.get("location") else ""


def _not_found(said: str, content: str, model: str) -> str:
    if _NO_MODEL.search(said):
        return f"correct the judge's model {model!r}; GET /models of the endpoint lists the names"
    if "<html" in content[:2000].lower():
        return "base_url leads to a website, not to an API; it usually ends with /v1"
    return "base_url must end just before /chat/completions, usually with /v1; correct it, or the name of the model"


def _rejected(names: str, rejects: Rejection, server: Server) -> str:
    if {"max_tokens", "max_completion_tokens"} & set(rejects.parameters) and "too large" in rejects.text.lower():
        return "lower max_output_tokens of the judge"
    if {"logprobs", "top_logprobs", "top_n_tokens"} & set(rejects.parameters):
        return f"the endpoint gives no log-probabilities for this model: {server.logprobs}"
    return f"the endpoint does not accept {names}; change the judge's options or its extra_body"


def _rejection(status: int, error: ErrorBody) -> Rejection | None:
    """The rejected parameters, if the error is about the request's fields. A server error must say so in as many words."""
    if status in {400, 422, 500, 501} and _NO_SYSTEM.search(error.text):
        return Rejection(("system",), error.text)
    snake = re.sub(
        r"(?<=[a-z])(?=[A-Z])", "_", error.text
    ).lower()  # some gateways name the fields MaxTokens and Temperature
    named = error.parameters or tuple(dict.fromkeys(_PARAMETERS.findall(snake)))
    if not named and re.search(
        r"(?i)only one (?:completion )?choice|\bn (?:must|should) be\b|['\"`]n['\"`]|\bn ?= ?1\b|multiple (?:candidates|choices|completions)|candidate_?count|\bbest_of\b",
        error.text,
    ):
        named = ("n",)
    if not named and status in {400, 422, 500, 501} and _GRAMMAR.search(error.text):
        return Rejection(("response_format",), error.text)
    if status >= 500:
        # "stream" is a word of many messages that have nothing to do with the parameter.
        is_named = bool(set(named) - {"stream"}) and _REJECTED.search(error.text) is not None
        is_ours = bool(error.parameters) or _VALIDATION.search(error.text) is not None or is_named
        return Rejection(named, error.text) if is_ours and status not in UNREACHED | {529} else None
    return Rejection(named, error.text) if named and status in {400, 404, 415, 422, 501} else None


def failure_of_page(content: bytes) -> CallFailed | None:
    """The failure of a web page under status 200: a gateway's trouble, or an address that is no API. None for other replies."""
    start = content[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    if not start[:200].lower().startswith((b"<!", b"<html", b"<?xml", b"<head", b"<body")):
        return None
    text = re.sub(r"<[^>]*>|\s+", " ", start.decode(errors="replace"))
    shown = storable(re.sub(r"\s+", " ", text))[:120]
    if _GATEWAY_PAGE.search(start):
        message = f"a gateway answered instead of the server: {shown!r}; check that the server runs"
        return CallFailed(FailureKind.UNPARSEABLE, message, retryable=True, paid=True)
    message = f"the reply is a web page, not JSON: {shown!r}; base_url leads to a website, not to an API; it usually ends with /v1"
    return CallFailed(FailureKind.BAD_REQUEST, message, retryable=False)


def read_error(content: str) -> ErrorBody:
    """The error of a body: OpenAI's, FastAPI's `detail`, a plain `message`, or text. The request it may repeat is left out."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return ErrorBody("", storable(content), _located(content))
    if isinstance(body, list) and body:  # Gemini wraps its error in a list
        body = body[0]
    error = body.get("error", body) if isinstance(body, dict) else body
    if not isinstance(error, dict):
        return ErrorBody("", storable(str(error)), _located(str(error)))
    detail = error.get("detail")
    if isinstance(detail, list):
        rows = [row for row in detail if isinstance(row, dict)]
        places = [_place(row.get("loc")) for row in rows]
        text = "; ".join(f"{'.'.join(place)}: {row.get('msg', '')}" for place, row in zip(places, rows, strict=True))
        limits = [
            f"{name} {row['ctx'][name]}"
            for row in rows
            if isinstance(row.get("ctx"), dict)
            for name in ("le", "lt")
            if name in row["ctx"]
        ]
        return ErrorBody(str(error.get("code") or ""), storable(" ".join([text, *limits])), _fields(places))
    text = str(error.get("message") or detail or error)
    param = error.get("param")
    named = (param.split(".")[0].strip(),) if isinstance(param, str) and param.strip() else _located(text)
    return ErrorBody(str(error.get("code") or error.get("type") or error.get("__type") or ""), storable(text), named)


def _place(location: Any) -> tuple[str, ...]:
    """The `loc` of a validation error, which some servers write as one name."""
    return tuple(map(str, location if isinstance(location, list) else [] if location is None else [location]))


def _located(text: str) -> tuple[str, ...]:
    """The fields named by the `loc` of validation errors that are printed as text."""
    return _fields([tuple(part.strip(" '\"") for part in each.split(",")) for each in _LOCATIONS.findall(text)])


def _fields(places: list[tuple[str, ...]]) -> tuple[str, ...]:
    """The field of the request in each place, such as ('body', 'response_format', 'type')."""
    named = [next((part for part in place if part and part != "body"), "") for place in places]
    return tuple(dict.fromkeys(name for name in named if name))


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, from Retry-After (seconds or date) or retry-after-ms; at most an hour."""
    try:
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif headers.get("retry-after", "").replace(".", "", 1).isdigit():
            seconds = float(headers["retry-after"])
        elif "retry-after" in headers:
            when = parsedate_to_datetime(headers["retry-after"])
            seconds = (when.replace(tzinfo=when.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
        else:
            return None
    except ValueError:
        return None
    return min(max(seconds, 0.0), MOST_RETRY_AFTER_S) if math.isfinite(seconds) else None


def _stated_wait(content: str) -> float | None:
    """Seconds that the text of an error asks to wait ("Please retry after 7 seconds", Google's RetryInfo); at most an hour."""
    found = _WAIT.search(content[:4000])
    if found is None or not (found["m"] or found["s"] or found["delay"]):
        return None
    seconds = float(found["delay"] or found["s"] or 0.0) / (1000.0 if found["ms"] else 1.0)
    return min(60.0 * float(found["m"] or 0.0) + seconds, MOST_RETRY_AFTER_S)


def unsent_remedy(error: BaseException, address: str) -> str:
    """The remedy where no connection could be made: the name, the port or the certificate is wrong, or nothing listens."""
    said = f"{error} {error.__cause__ or ''} {error.__cause__.__cause__ if error.__cause__ else ''}".lower()
    if "certificate" in said:
        return "the server's certificate is not trusted: correct the host in base_url, or name its CA in SSL_CERT_FILE"
    if "wrong version number" in said or "record layer" in said or "ssl" in said:
        return "the server does not speak TLS there: write http:// in base_url, or correct the port"
    if "name or service" in said or "getaddrinfo" in said or "nodename" in said or "name resolution" in said:
        return f"no host has the name in {address}: correct base_url, or the DNS of this host"
    if "refused" in said or "all connection attempts" in said:
        return f"nothing listens at {address}: start the server, or correct base_url"
    if "unreachable" in said or "no route" in said:
        return f"no network route to {address}: check firewall and VPN"
    return "check that the server runs, and base_url"


def stated_floor(text: str) -> int | None:
    """The smallest value that an error allows: "expected a value >= 16", "must be at least 16", "minimum is 16"; else None."""
    match = _FLOOR.search(text)
    if match is None:
        return None
    return int(match["above"]) + 1 if match["above"] else int(match["least"])


_FLOOR = re.compile(
    r"(?:>=|≥|at least|greater than or equal to|no less than|not (?:be )?less than|minimum (?:value |allowed )?(?:of |is |: ?|= ?)?|"
    r"\bge\b|larger than or equal to)\s*`?(?P<least>\d+)"
    r"|(?:greater than|larger than|more than|above|>)\s*`?(?P<above>\d+)",
    re.IGNORECASE,
)


def stated_limit(text: str) -> int | None:
    """The largest value that an error allows: "less than or equal to 5", "max allowed: 5", "in the range [0, 20]"; None without one."""
    for pattern, offset in _LIMITS:
        if match := pattern.search(text):
            return int(match[1]) - offset
    return None


_LIMITS: list[tuple[re.Pattern[str], int]] = [
    (
        re.compile(
            r"(?:less than or equal to|at most|up to|no more than|<=|\ble|cannot exceed|must not exceed|(?:not|cannot|can't) [^.\d]{0,30}more than)\s*`?(\d+)",
            re.IGNORECASE,
        ),
        0,
    ),
    (re.compile(r"(?:max_\w+\s*[=:(]|\bonly(?: up to)?)\s*(\d+)", re.IGNORECASE), 0),
    (
        re.compile(
            r"max(?:imum)?(?: (?:allowed|value|supported|number))*(?: (?:of|is))?\s*[:=]?\s*(\d+)", re.IGNORECASE
        ),
        0,
    ),
    (
        re.compile(r"(?:between|range|from)[^\d]{0,40}\d+\s*(?:,|-|–|\.\.\.?|and|to)\s*(\d+)\s*\)", re.IGNORECASE),
        1,
    ),
    (re.compile(r"(?:between|range|from)[^\d]{0,40}\d+\s*(?:,|-|–|\.\.\.?|and|to)\s*(\d+)", re.IGNORECASE), 0),
    (re.compile(r"(?:less than|<|\blt)\s*(\d+)", re.IGNORECASE), 1),
]
