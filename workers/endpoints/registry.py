"""The endpoints of language models, which the operator defines and projects choose by name.

ZELO_ENDPOINTS holds JSON, or the path of a JSON or TOML file. Keys stay in environment variables or
secret files and are read when a call is made. Endpoints that superusers have added come from the function passed to
`read_stored_with` (`workers.endpoints.stored.rows`). Imports no Django.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import pydantic

from labeling.plugins import problem_of
from workers.endpoints.batching import BatchLimits
from workers.endpoints.gates import Channel, Limits
from workers.endpoints.request_values import (
    PUBLIC_NAMES,
    RequestValue,
    ValueMissing,
    check_header_names,
    check_query_names,
    read_place,
)

VARIABLE = "ZELO_ENDPOINTS"
# Without ZELO_ENDPOINTS, the variables of OpenAI's own clients define one endpoint.
KEY_VARIABLE, ADDRESS_VARIABLE = "OPENAI_API_KEY", "OPENAI_BASE_URL"
# Those clients know no prices; without these variables the endpoint has none.
PRICE_VARIABLES = {"input_price": "OPENAI_INPUT_PRICE", "output_price": "OPENAI_OUTPUT_PRICE"}
OF_ENVIRONMENT, DEFAULT_ADDRESS = "openai", "https://api.openai.com/v1"
FOR_OTHER_PROCESSES = (
    f". {KEY_VARIABLE} and {ADDRESS_VARIABLE} count only in processes that start with them: "
    "restart the server with the same variables, or add the endpoint on the page Endpoints"
)


class UnknownEndpoint(LookupError):
    """The operator has defined no endpoint of that name."""


class EndpointsInvalid(ValueError):
    """ZELO_ENDPOINTS cannot be read, or is not valid."""


class KeyMissing(LookupError):
    """The environment variable or file of an endpoint holds no key, or not the value of a header or query parameter."""


Price = Annotated[float, pydantic.Field(ge=0, le=1e6, description="Dollars per million tokens.")]
COMPLETIONS = "/chat/completions"


@dataclass(frozen=True, slots=True)
class Access:
    """Secrets and parameters of a call, read at that moment: the key and all values of headers and query."""

    key: pydantic.SecretStr | None
    headers: tuple[tuple[str, str], ...]
    query: tuple[tuple[str, str], ...]
    # The texts that no message may show; the longest first, so that no part of one remains.
    secrets: tuple[pydantic.SecretStr, ...]

    def __repr__(self) -> str:
        return f"Access({len(self.headers)} headers, {len(self.query)} query parameters)"


class Endpoint(pydantic.BaseModel):
    """One server with the OpenAI API. It holds the place of its key, never the key itself.

    `base_url` ends before `/chat/completions`; a query at its end becomes part of `query`. The key is sent as
    `key_header: key_prefix + key`, by default `Authorization: Bearer ...`. `timeout_s` is the total deadline of one call, from the
    first byte sent to the last received. `max_concurrency`, `rpm` and `tpm` (requests and tokens a minute) hold for all
    workers together, `limits_per_model` for each model by itself. The fields `batch_*` are described in docs/judges.md.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    base_url: str
    api_key_env: str = ""
    api_key_file: Path | None = None
    key_header: str = "Authorization"
    key_prefix: str | None = pydantic.Field(default=None, max_length=40)
    headers: dict[str, RequestValue] = pydantic.Field(default_factory=dict, max_length=50)
    query: dict[str, RequestValue] = pydantic.Field(default_factory=dict, max_length=50)
    input_price: Price = 0.0
    output_price: Price = 0.0
    max_concurrency: int = pydantic.Field(default=32, ge=1, le=4096)
    timeout_s: float = pydantic.Field(default=60.0, gt=0, le=3600)
    rpm: float | None = pydantic.Field(default=None, gt=0)
    tpm: float | None = pydantic.Field(default=None, gt=0)
    limits_per_model: bool = False
    batch_discount: float = pydantic.Field(default=0.5, ge=0, le=1)
    batch_max_requests: int = pydantic.Field(default=50_000, ge=1)
    batch_max_bytes: int = pydantic.Field(default=200_000_000, ge=1_000)
    batch_max_tokens: int | None = pydantic.Field(default=None, ge=1)
    batch_wait_s: float = pydantic.Field(default=30.0, ge=0, le=86_400)
    batch_poll_s: float = pydantic.Field(default=60.0, ge=0.1, le=3600)
    batch_url: str = pydantic.Field(default="/v1/chat/completions", pattern=r"^/[\w./-]*$")

    @pydantic.model_validator(mode="before")
    @classmethod
    def _query_of_its_own(cls, values: Any) -> Any:
        """Move a query at the end of `base_url` into `query`."""
        url = values.get("base_url") if isinstance(values, Mapping) else None
        if not isinstance(url, str) or "?" not in url:
            return values
        parts = urlsplit(url.strip())
        given, found = values.get("query") or {}, parse_qsl(parts.query, keep_blank_values=True)
        if not isinstance(given, Mapping):
            return values
        moved = dict(found)
        if len(moved) < len(found):
            raise ValueError("base_url gives a query parameter twice; write it once")
        if twice := sorted(set(moved) & set(given)):
            raise ValueError(f"base_url and query both give {twice[0]!r}; write it once")
        plain = urlunsplit((parts.scheme, parts.netloc, parts.path, "", parts.fragment))
        return {**values, "base_url": plain, "query": {**moved, **given}}

    @pydantic.field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str) -> str:
        url = pydantic.TypeAdapter(pydantic.HttpUrl).validate_python(value)
        if url.username or url.password or url.fragment or url.query:
            raise ValueError("must not contain a user, password or fragment; put the key into api_key_env")
        return value.strip().rstrip("/").removesuffix(COMPLETIONS).rstrip("/")

    @pydantic.field_validator("key_prefix")
    @classmethod
    def _printable(cls, value: str | None) -> str | None:
        if value and not (value.isascii() and value.isprintable()):
            raise ValueError("holds line breaks, control characters or letters outside ASCII")
        return value

    @pydantic.field_validator("key_header")
    @classmethod
    def _key_header_name(cls, value: str) -> str:
        check_header_names({value: None})
        return value

    @pydantic.field_validator("headers")
    @classmethod
    def _header_names(cls, value: dict[str, RequestValue]) -> dict[str, RequestValue]:
        check_header_names(value)
        return value

    @pydantic.field_validator("query")
    @classmethod
    def _query_names(cls, value: dict[str, RequestValue]) -> dict[str, RequestValue]:
        check_query_names(value)
        return value

    @pydantic.model_validator(mode="after")
    def _one_source_of_the_key(self) -> Endpoint:
        if self.api_key_env and self.api_key_file is not None:
            raise ValueError("has both api_key_env and api_key_file; keep one")
        has_key = bool(self.api_key_env) or self.api_key_file is not None
        if has_key and self.key_header.lower() in {name.lower() for name in self.headers}:
            raise ValueError(f"headers.{self.key_header} is the header of the key; keep it or the key")
        return self

    def __hash__(self) -> int:
        return hash((self.name, self.base_url, self.key_header, *self.headers, *self.query))

    def api_key(self) -> pydantic.SecretStr | None:
        """The current key, None if the endpoint needs none. Raises KeyMissing."""
        if not self.api_key_env and self.api_key_file is None:
            return None
        try:
            return pydantic.SecretStr(read_place(self.api_key_env, self.api_key_file))
        except ValueMissing as error:
            raise KeyMissing(f"endpoint {self.name!r}: the key's {error}") from None

    def access(self) -> Access:
        """The key, headers and query of a call, as they are now. Raises KeyMissing, which names the field."""
        key = self.api_key()
        headers, query = self._read("headers", self.headers), self._read("query", self.query)
        secrets = {value for name, value in (*headers, *query) if name.lower() not in PUBLIC_NAMES}
        if key is not None:
            headers = [each for each in headers if each[0].lower() != self.key_header.lower()]
            secrets.add(key.get_secret_value())
            is_bearer = self.key_header.lower() == "authorization"
            prefix = self.key_prefix if self.key_prefix is not None else "Bearer " if is_bearer else ""
            headers.append((self.key_header, prefix + key.get_secret_value()))
        hidden = tuple(pydantic.SecretStr(each) for each in sorted(secrets, key=lambda each: (-len(each), each)))
        return Access(key, tuple(headers), tuple(query), hidden)

    def _read(self, field: str, values: Mapping[str, RequestValue]) -> list[tuple[str, str]]:
        found = []
        for name, value in values.items():
            try:
                found.append((name, value.read()))
            except ValueMissing as error:
                raise KeyMissing(f"endpoint {self.name!r}: {field}.{name}: {error}") from None
        return found

    @property
    def limits(self) -> Limits:
        return Limits(self.max_concurrency, self.rpm, self.tpm, self.timeout_s)

    def channel(self, model: str) -> Channel:
        """The channel under which the provider counts calls of this model. Raises KeyMissing."""
        access = self.access()
        key = access.key.get_secret_value() if access.key else ""
        counted = model if self.limits_per_model else ""
        # The key's own header is part of the key; other headers and the query select an account or a version.
        added = [each for each in (*access.headers, *access.query) if each[0] != self.key_header]
        identity = _identity(self.base_url, key, counted, tuple(sorted(added)))
        return Channel(identity, self.name, self.base_url, counted, self.limits)

    def cost_micros(self, input_tokens: int, output_tokens: int) -> int:
        """Price of a call in millionths of a dollar, rounded up: a dollar a million is a micro a token."""
        return math.ceil(round(input_tokens * self.input_price + output_tokens * self.output_price, 6))

    def batch_cost_micros(self, input_tokens: int, output_tokens: int) -> int:
        """The same for a request in a batch, less `batch_discount`."""
        return math.ceil(round((1.0 - self.batch_discount) * self.cost_micros(input_tokens, output_tokens), 6))

    @property
    def batch_limits(self) -> BatchLimits:
        return BatchLimits(
            requests=self.batch_max_requests,
            size=self.batch_max_bytes,
            tokens=self.batch_max_tokens,
            wait_s=self.batch_wait_s,
            poll_s=self.batch_poll_s,
        )


@functools.lru_cache(maxsize=256)
def _identity(base_url: str, key: str, model: str, added: tuple[tuple[str, str], ...]) -> str:
    """A hash of address, key, model and added values, equal on all hosts; slow to compute, so that short keys cannot be
    guessed.
    """
    address = base_url.rstrip("/").lower()
    secret = "\0".join([key, model, *(f"{name.lower()}\0{value}" for name, value in added)])
    return hashlib.pbkdf2_hmac("sha256", secret.encode(), address.encode(), 50_000, 16).hex()


@dataclass(frozen=True, slots=True)
class StoredEndpoints:
    """The endpoints in the database: those in use, the names of retired ones, and problems, a sentence each."""

    endpoints: Mapping[str, Endpoint] = field(default_factory=dict)
    retired: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


_read_stored: Callable[[], StoredEndpoints] = StoredEndpoints


def read_stored_with(read: Callable[[], StoredEndpoints]) -> None:
    """Let all look-ups of this process also find the endpoints that `read` returns; ZELO_ENDPOINTS wins on equal names."""
    global _read_stored
    _read_stored = read


def load_endpoints(environment: Mapping[str, str] | None = None) -> dict[str, Endpoint]:
    """All endpoints by name: of ZELO_ENDPOINTS, in its order, then the stored ones; of `environment` alone if it is given.

    Raises EndpointsInvalid.
    """
    if environment is not None:
        return _defined_in(environment)
    defined = _defined_in(os.environ)
    return defined | {name: each for name, each in _read_stored().endpoints.items() if name not in defined}


_SEVERAL = pydantic.TypeAdapter(list[Endpoint])


def _defined_in(environment: Mapping[str, str]) -> dict[str, Endpoint]:
    text = environment.get(VARIABLE, "").strip()
    if not text:
        own = endpoint_of_environment(environment)
        return {} if own is None else {own.name: own}
    rows = _rows(text)
    try:
        endpoints = _SEVERAL.validate_python(rows)
    except pydantic.ValidationError as error:
        raise EndpointsInvalid(f"{VARIABLE} is not valid: {problem_of(error)}; see docs/judges.md") from None
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    if len(by_name) < len(endpoints):
        raise EndpointsInvalid(f"{VARIABLE} defines two endpoints with the same name; rename one")
    return by_name


def endpoint_of_environment(environment: Mapping[str, str] | None = None) -> Endpoint | None:
    """The endpoint `openai` that OPENAI_API_KEY, OPENAI_BASE_URL or both define, unless ZELO_ENDPOINTS is set.

    Raises EndpointsInvalid for a wrong address or price.
    """
    environment = os.environ if environment is None else environment
    key, address = (environment.get(name, "").strip() for name in (KEY_VARIABLE, ADDRESS_VARIABLE))
    if environment.get(VARIABLE, "").strip() or not (key or address):
        return None
    prices = {field: environment.get(name, "").strip() for field, name in PRICE_VARIABLES.items()}
    values = {
        "name": OF_ENVIRONMENT, "base_url": address or DEFAULT_ADDRESS, "api_key_env": KEY_VARIABLE if key else "",
        **{field: price for field, price in prices.items() if price},
    }  # fmt: skip
    try:
        return Endpoint.model_validate(values)
    except pydantic.ValidationError as error:
        wrong = "; ".join(each["msg"] for each in error.errors())
        fields = {str(each["loc"][0]) for each in error.errors() if each["loc"]}
        for field, name in PRICE_VARIABLES.items():
            if field in fields:
                raise EndpointsInvalid(
                    f"{name} is {prices[field]!r}: {wrong}; expected dollars per million tokens, such as 0.15"
                ) from None
        raise EndpointsInvalid(
            f"{ADDRESS_VARIABLE} is {address!r}: {wrong}; expected an address such as http://127.0.0.1:8000/v1"
        ) from None


def get_endpoint(name: str) -> Endpoint:
    """The endpoint of that name. Raises UnknownEndpoint, which lists the defined names, or EndpointsInvalid."""
    defined = _defined_in(os.environ)
    if name in defined:
        return defined[name]
    stored = _read_stored()
    if name in stored.retired:
        raise UnknownEndpoint(
            f"endpoint {name!r} is retired; choose another one, or ask a superuser to bring it back on the page Endpoints"
        )
    if name not in stored.endpoints:
        known = ", ".join([*defined, *stored.endpoints]) or "none"
        remedy = FOR_OTHER_PROCESSES if name == OF_ENVIRONMENT else ""
        raise UnknownEndpoint(f"no endpoint is named {name!r}; defined are: {known}{remedy}")
    return stored.endpoints[name]


def endpoint_problems() -> list[str]:
    """The problems of the defined endpoints, a sentence each; for checks at start-up."""
    try:
        endpoints = load_endpoints()
    except EndpointsInvalid as error:
        return [str(error)]
    problems = list(_read_stored().problems)
    for endpoint in endpoints.values():
        try:
            endpoint.access()
        except KeyMissing as error:
            problems.append(str(error))
    return problems


def _rows(text: str) -> Any:
    """The list of definitions, from JSON text or from a file."""
    try:
        if text[0] in "[{":
            document = json.loads(text)
        elif text.endswith(".toml"):
            document = tomllib.loads(Path(text).read_text(encoding="utf-8"))
        else:
            document = json.loads(Path(text).read_text(encoding="utf-8"))
    except OSError as error:
        raise EndpointsInvalid(f"{VARIABLE} names the file {text!r}: {error.strerror}; expected JSON or TOML") from None
    except ValueError as error:  # JSONDecodeError and TOMLDecodeError; their text shows a position, not the content
        raise EndpointsInvalid(f"{VARIABLE} is neither JSON nor TOML ({error}); see docs/judges.md") from None
    return document.get("endpoints", []) if isinstance(document, dict) else document
