"""Calls external rerankers over HTTP, so that an evaluation can compare them with ours.

ZELO_RERANKERS holds JSON, or the path of a JSON file: a list of endpoints that the operator defines and
projects choose by name. It supports three shapes: `cohere` (also vLLM), `jina`, `tei`. Keys stay in
environment variables and are read at each call. `trainer.evaluation.external.prompts` fills templates. Imports no Django.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pydantic

from labeling.access.redaction import redact
from labeling.plugins import problem_of
from labeling.records import FloatArray
from labeling.stored_texts import counted
from trainer.evaluation.external.prompts import DOCUMENT, QUERY, Template, check_templates, filled

VARIABLE = "ZELO_RERANKERS"
ATTEMPTS = 4
LONGEST_WAIT_S = 60.0
BACKOFF_S = 1.0
MOST_REPLY_BYTES = 16 * 1024 * 1024
RETRIED = {408, 409, 425, 429, 500, 502, 503, 504}
TOO_MUCH = {413, 422}
ANSWERED = {200, 201}  # gateways answer 201 to any POST
# TEI refuses more texts than its --max-client-batch-size, 32 by default.
MOST_DOCUMENTS = {"cohere": 100, "jina": 100, "tei": 32}


class OutsideInvalid(ValueError):
    """ZELO_RERANKERS cannot be read or is not valid."""


class UnknownOutside(LookupError):
    """The operator has defined no external reranker of that name."""


class OutsideFailed(RuntimeError):
    """An external reranker did not rank: it is unreachable, refused, or sent an unreadable answer."""


class TooMuch(OutsideFailed):
    """The endpoint refused the size of a request."""


class OutsideEndpoint(pydantic.BaseModel):
    """One external reranker. `url` is the full address for POST requests.

    `most_documents`: maximum number of documents in one request, by default MOST_DOCUMENTS. Longer lists are split, and parts
    that the endpoint finds too large are halved. That is safe only for models that score each document by itself;
    `listwise` models read all documents together, and their lists are never split. `query_template` and
    `document_template` hold the prompt of a model whose server adds none; see `prompts`.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    url: str
    shape: Literal["cohere", "jina", "tei"] = "cohere"
    model: str = ""
    api_key_env: str = ""
    timeout_s: float = pydantic.Field(default=60.0, gt=0, le=600)
    most_documents: int | None = pydantic.Field(default=None, ge=1, le=10_000)
    listwise: bool = False
    query_template: Template = QUERY
    document_template: Template = DOCUMENT
    instruction: str = pydantic.Field(default="", max_length=2000)

    @pydantic.field_validator("url")
    @classmethod
    def _plain_http(cls, value: str) -> str:
        url = pydantic.TypeAdapter(pydantic.HttpUrl).validate_python(value)
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("must hold no user, password, query or fragment; put the key into api_key_env")
        return value

    @pydantic.model_validator(mode="after")
    def _model_where_needed(self) -> OutsideEndpoint:
        if self.shape != "tei" and not self.model:
            raise ValueError(f"shape {self.shape!r} needs a model name")
        check_templates(self.query_template, self.document_template, self.instruction)
        return self

    @property
    def documents_at_once(self) -> int:
        return self.most_documents or MOST_DOCUMENTS[self.shape]


def outside_endpoints(environment: Mapping[str, str] | None = None) -> dict[str, OutsideEndpoint]:
    """All external rerankers by name; empty if ZELO_RERANKERS is unset. Raises OutsideInvalid."""
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return {}
    try:
        rows = json.loads(text if text[0] in "[{" else Path(text).read_text(encoding="utf-8"))
        found = pydantic.TypeAdapter(list[OutsideEndpoint]).validate_python(rows)
    except OSError as error:
        raise OutsideInvalid(f"{VARIABLE} names the file {text!r}: {error.strerror}; expected JSON") from None
    except pydantic.ValidationError as error:
        raise OutsideInvalid(f"{VARIABLE} is not valid: {problem_of(error)}; see docs/evaluation.md") from None
    except ValueError as error:
        raise OutsideInvalid(f"{VARIABLE} is not JSON ({error}); see docs/evaluation.md") from None
    by_name = {each.name: each for each in found}
    if len(by_name) < len(found):
        raise OutsideInvalid(f"{VARIABLE} defines two rerankers of one name; rename one")
    return by_name


def outside_endpoint(name: str) -> OutsideEndpoint:
    """The endpoint of that name. Raises UnknownOutside, which lists the defined names, or OutsideInvalid."""
    found = outside_endpoints()
    if name not in found:
        raise UnknownOutside(f"no outside reranker is named {name!r}; {VARIABLE} defines: {', '.join(found) or 'none'}")
    return found[name]


class OutsideReranker:
    """Gets scores from an endpoint over one open connection. Use as a context manager."""

    def __init__(self, endpoint: OutsideEndpoint, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.endpoint = endpoint
        self._sleep = sleep
        self._size = endpoint.documents_at_once
        self._client = httpx.AsyncClient(timeout=None, follow_redirects=False)
        self._loop = asyncio.Runner()

    def __enter__(self) -> OutsideReranker:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.run(self._client.aclose())
        self._loop.close()

    def scores(self, query: str, documents: Sequence[str], *, instruction: str = "") -> FloatArray:
        """One score per document, in order, higher is better; `instruction` replaces that of the endpoint.

        Raises OutsideFailed, also for a list that is too long for a listwise model.
        """
        if not documents:
            return np.zeros(0)
        end = self.endpoint
        asked = filled(end.query_template, query=query, instruction=instruction or end.instruction)
        shown = [filled(end.document_template, document=each) for each in documents]
        if not end.listwise:
            return self._in_parts(asked, shown)
        if len(documents) > end.documents_at_once:
            raise OutsideFailed(
                f"{end.name} is listwise and takes {counted(end.documents_at_once, 'document')}, and a query has {len(documents)}; parts "
                "of a list have scores that cannot be compared. Raise most_documents, or evaluate fewer candidates"
            )
        return self._part(asked, shown)

    def _in_parts(self, query: str, documents: Sequence[str]) -> FloatArray:
        """Scores of models that read each document by itself; the size of parts that was refused is not tried again."""
        found: list[FloatArray] = []
        done = 0
        while done < len(documents):
            part = documents[done : done + self._size]
            try:
                found.append(self._part(query, part))
            except TooMuch as error:
                if len(part) == 1:
                    size = counted(len(part[0]), "character")
                    raise OutsideFailed(f"{error}; it refused one document of {size} alone") from None
                self._size = (len(part) + 1) // 2
            else:
                done += len(part)
        return np.concatenate(found)

    def _part(self, query: str, documents: Sequence[str]) -> FloatArray:
        if self.endpoint.shape == "tei":
            body: dict[str, Any] = {"query": query, "texts": list(documents), "raw_scores": True, "truncate": True}
            return self._read(self._post(body), "score", len(documents))
        body = {"model": self.endpoint.model, "query": query, "documents": list(documents), "top_n": len(documents)}
        if self.endpoint.shape == "jina":
            body["return_documents"] = False
        return self._read(self._post(body), "relevance_score", len(documents))

    def _headers(self) -> dict[str, str]:
        plain = {"Accept-Encoding": "identity"}  # a small packed reply could unpack to gigabytes
        if not self.endpoint.api_key_env:
            return plain
        key = os.environ.get(self.endpoint.api_key_env, "").strip()
        if not key:
            raise OutsideFailed(
                f"{self.endpoint.name}: environment variable {self.endpoint.api_key_env} is empty; put the key there "
                "and restart the workers"
            )
        if not (key.isascii() and key.isprintable()):
            raise OutsideFailed(
                f"{self.endpoint.name}: environment variable {self.endpoint.api_key_env} holds a character that no key has; "
                "put the key there alone and restart the workers"
            )
        return {**plain, "Authorization": f"Bearer {key}"}

    def _post(self, body: Mapping[str, Any]) -> Any:
        """The JSON of the answer; retries temporary failures after the wait that the endpoint asks for."""
        problem, failure = "", OutsideFailed
        for attempt in range(ATTEMPTS):
            try:
                reply = self._reply(body)
            except httpx.HTTPError as error:
                problem = f"{type(error).__name__}: {self._clean(str(error))}"
                wait = BACKOFF_S * 2.0**attempt
            else:
                if reply.status_code in ANSWERED:
                    return self._json(reply)
                problem = f"status {reply.status_code}: {self._clean(reply.text, 300)}"
                if to := reply.headers.get("location"):
                    problem += f", redirected to {self._clean(to, 300)}"
                if reply.status_code not in RETRIED:
                    failure = TooMuch if reply.status_code in TOO_MUCH else OutsideFailed
                    break
                wait = _retry_after_s(reply) or BACKOFF_S * 2.0**attempt
            if attempt + 1 < ATTEMPTS:
                self._sleep(min(wait, LONGEST_WAIT_S))
        raise failure(f"{self.endpoint.name} did not rank ({problem}); check that it runs and which limits it has")

    def _reply(self, body: Mapping[str, Any]) -> httpx.Response:
        """One request, `timeout_s` in all from the connection to the last byte, however the pieces arrive.

        Raises OutsideFailed for packed scores and for a longer reply, httpx.HTTPError.
        """
        return self._loop.run(self._asked(body, self._headers()))

    async def _asked(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                return await self._read_reply(body, headers)
        except TimeoutError:
            raise httpx.ReadTimeout(f"the reply took longer than {self.endpoint.timeout_s:g} s") from None

    async def _read_reply(self, body: Mapping[str, Any], headers: Mapping[str, str]) -> httpx.Response:
        """The reply, up to MOST_REPLY_BYTES. A packed error page is not read: its status says enough."""
        async with self._client.stream("POST", self.endpoint.url, json=body, headers=dict(headers)) as reply:
            content = bytearray()
            encoding = reply.headers.get("content-encoding", "").strip()
            is_packed = encoding.lower() not in ("", "identity")
            if is_packed and reply.status_code in ANSWERED:
                raise OutsideFailed(
                    f"{self.endpoint.name} answered packed content ({self._clean(encoding, 40)}); expected plain JSON"
                )
            if not is_packed:
                async for block in reply.aiter_raw():
                    content += block
                    if len(content) > MOST_REPLY_BYTES:
                        raise OutsideFailed(
                            f"{self.endpoint.name} answered more than {MOST_REPLY_BYTES:,} bytes; expected a list of scores"
                        )
        kept = {name: reply.headers[name] for name in ("retry-after", "location") if name in reply.headers}
        return httpx.Response(reply.status_code, headers=kept, content=bytes(content))

    def _clean(self, text: str, most: int = 1000) -> str:
        """Return the text's beginning without the endpoint's key, or anything that looks like a key.

        The text is redacted before it is cut, so that no part of a key remains.
        """
        key = os.environ.get(self.endpoint.api_key_env, "") if self.endpoint.api_key_env else ""
        return redact(text, pydantic.SecretStr(key))[:most]

    def _json(self, reply: httpx.Response) -> Any:
        try:
            return json.loads(reply.content)
        except (ValueError, RecursionError):
            raise OutsideFailed(
                f"{self.endpoint.name} answered {self._clean(reply.text, 200)!r}; expected JSON"
            ) from None

    def _read(self, answer: Any, key: str, count: int) -> FloatArray:
        """Scores by position; checks that every document has exactly one finite score."""
        rows = answer.get("results") if isinstance(answer, dict) else answer
        scores = np.full(count, math.nan)
        named: set[int] = set()  # an index may come twice, the first time with NaN
        try:
            if not isinstance(rows, list):
                raise ValueError("no list of results")
            for row in rows:
                index, score = row["index"], row[key]
                if type(index) is not int or not 0 <= index < count or index in named:
                    raise ValueError(f"index {index!r}")
                if type(score) not in (int, float):  # float() reads True and "0.5"
                    raise ValueError(f"{key} {score!r}")
                scores[index] = score
                named.add(index)
        except (TypeError, KeyError, ValueError, OverflowError) as error:
            raise OutsideFailed(
                f"{self.endpoint.name} answered {self._clean(str(answer), 200)!r} ({self._clean(str(error), 100)}); expected one row with index and {key} "
                f"for each of {counted(count, 'document')}; check `shape`"
            ) from None
        if not np.isfinite(scores).all():
            raise OutsideFailed(
                f"{self.endpoint.name} scored {int(np.isfinite(scores).sum())} of {counted(count, 'document')} with a finite "
                "number; expected all of them"
            )
        return scores


def _retry_after_s(reply: httpx.Response) -> float | None:
    """The wait that the endpoint asks for, in seconds or as a date; None if it names none that is to come."""
    given = reply.headers.get("retry-after", "")
    try:
        seconds = float(given)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(given).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return seconds if 0.0 < seconds < math.inf else None
