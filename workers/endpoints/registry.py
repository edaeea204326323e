"""The endpoints of language models, which the operator defines and projects choose by name.

ZELO_ENDPOINTS holds JSON, or the path of a JSON or TOML file. Keys stay in environment variables or
secret files and are read when a call is made. Imports no Django.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import pydantic

from workers.endpoints.batching import BatchLimits
from workers.endpoints.gates import Channel, Limits

VARIABLE = "ZELO_ENDPOINTS"


class UnknownEndpoint(LookupError):
    """The operator has defined no endpoint of that name."""


class EndpointsInvalid(ValueError):
    """ZELO_ENDPOINTS cannot be read, or is not valid."""


class KeyMissing(LookupError):
    """The environment variable or file of an endpoint holds no key."""


Price = Annotated[float, pydantic.Field(ge=0, le=1e6, description="Dollars per million tokens.")]


class Endpoint(pydantic.BaseModel):
    """One server with the OpenAI API. It holds the place of its key, never the key itself.

    `base_url` ends before `/chat/completions`. `timeout_s` is the total deadline of one call, from the
    first byte sent to the last received. `max_concurrency`, `rpm` and `tpm` (requests and tokens a minute) hold for all
    workers together, `limits_per_model` for each model by itself. The fields `batch_*` are described in docs/judges.md.
    """

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    base_url: str
    api_key_env: str = ""
    api_key_file: Path | None = None
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

    @pydantic.field_validator("base_url")
    @classmethod
    def _plain_http(cls, value: str) -> str:
        url = pydantic.TypeAdapter(pydantic.HttpUrl).validate_python(value)
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("must not contain a user, password, query or fragment; put the key into api_key_env")
        return value.rstrip("/")

    @pydantic.model_validator(mode="after")
    def _one_source_of_the_key(self) -> Endpoint:
        if self.api_key_env and self.api_key_file is not None:
            raise ValueError("has both api_key_env and api_key_file; keep one")
        return self

    def api_key(self) -> pydantic.SecretStr | None:
        """The current key, None if the endpoint needs none. Raises KeyMissing."""
        if self.api_key_env:
            return self._key(os.environ.get(self.api_key_env, ""), f"environment variable {self.api_key_env}")
        if self.api_key_file is not None:
            try:
                return self._key(self.api_key_file.read_text(encoding="utf-8"), f"file {self.api_key_file}")
            except OSError as error:
                raise KeyMissing(
                    f"endpoint {self.name!r}: file {self.api_key_file} cannot be read ({error.strerror}); "
                    "create it, readable only by the workers"
                ) from None
        return None

    def _key(self, value: str, source: str) -> pydantic.SecretStr:
        key = value.strip()
        if not key:
            raise KeyMissing(f"endpoint {self.name!r}: {source} is empty; put the key there and restart the workers")
        if not key.isascii() or not key.isprintable():
            raise KeyMissing(f"endpoint {self.name!r}: {source} holds characters that no key has; write it again")
        return pydantic.SecretStr(key)

    @property
    def limits(self) -> Limits:
        return Limits(self.max_concurrency, self.rpm, self.tpm, self.timeout_s)

    def channel(self, model: str) -> Channel:
        """The channel under which the provider counts calls of this model. Raises KeyMissing."""
        key = self.api_key()
        counted = model if self.limits_per_model else ""
        identity = _identity(self.base_url, key.get_secret_value() if key else "", counted)
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
def _identity(base_url: str, key: str, model: str) -> str:
    """A hash of address, key and model, equal on all hosts; slow to compute, so that short keys cannot be guessed."""
    address = base_url.rstrip("/").lower()
    return hashlib.pbkdf2_hmac("sha256", f"{key}\0{model}".encode(), address.encode(), 50_000, 16).hex()


def load_endpoints(environment: Mapping[str, str] | None = None) -> dict[str, Endpoint]:
    """All endpoints by name, in the order of definition; empty if ZELO_ENDPOINTS is unset. Raises EndpointsInvalid."""
    text = (os.environ if environment is None else environment).get(VARIABLE, "").strip()
    if not text:
        return {}
    rows = _rows(text)
    try:
        endpoints = pydantic.TypeAdapter(list[Endpoint]).validate_python(rows)
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise EndpointsInvalid(f"{VARIABLE} is not valid: {problems}; see docs/judges.md") from None
    by_name = {endpoint.name: endpoint for endpoint in endpoints}
    if len(by_name) < len(endpoints):
        raise EndpointsInvalid(f"{VARIABLE} defines two endpoints with the same name; rename one")
    return by_name


def get_endpoint(name: str) -> Endpoint:
    """The endpoint of that name. Raises UnknownEndpoint, which lists the defined names, or EndpointsInvalid."""
    endpoints = load_endpoints()
    if name not in endpoints:
        known = ", ".join(endpoints) or "none"
        raise UnknownEndpoint(f"no endpoint is named {name!r}; {VARIABLE} defines: {known}")
    return endpoints[name]


def endpoint_problems() -> list[str]:
    """The problems of the defined endpoints, a sentence each; for checks at start-up."""
    try:
        endpoints = load_endpoints()
    except EndpointsInvalid as error:
        return [str(error)]
    problems = []
    for endpoint in endpoints.values():
        try:
            endpoint.api_key()
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
