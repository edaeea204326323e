"""Parameters that an endpoint accepts, as far as a process has learned, by endpoint and model.

A judge learns from a rejected request and sends the next one so that it is accepted. `workers.endpoints.limiter` shares
what was learned with all other processes, in the endpoint's row. Imports no Django.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

# A server may have been updated since: what was learned is learned again after so long.
EXPIRES_S = 86_400.0
MOST_MODELS = 200
FORMATS = ("json_schema", "json_object", "none")


@dataclass(frozen=True, slots=True)
class Learned:
    """The parameters of one model at one endpoint. The defaults say that nothing was learned.

    `most_top_logprobs`: 0 is no known limit; `least_tokens`: the smallest limit of output tokens that it accepts; `n`: whether the endpoint returned as many choices as asked.
    """

    token_limit_field: str = ""
    omitted: frozenset[str] = frozenset()
    response_format: str = ""
    most_top_logprobs: int = 0
    least_tokens: int = 0
    n: str = ""
    at: float = field(default=0.0, compare=False)

    def merged(self, other: Learned) -> Learned:
        """Both together; where they differ, the more careful of the two, or else the newer."""
        newer, older = (other, self) if other.at >= self.at else (self, other)
        formats = [each for each in (self.response_format, other.response_format) if each]
        limits = [each for each in (self.most_top_logprobs, other.most_top_logprobs) if each]
        return Learned(
            token_limit_field=newer.token_limit_field or older.token_limit_field,
            omitted=self.omitted | other.omitted,
            response_format=max(formats, key=FORMATS.index, default=""),
            most_top_logprobs=min(limits, default=0),
            least_tokens=max(self.least_tokens, other.least_tokens),
            n="ignored" if "ignored" in (self.n, other.n) else self.n or other.n,
            at=newer.at,
        )

    def as_json(self) -> dict[str, Any]:
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**values, "omitted": sorted(self.omitted)}

    @classmethod
    def from_json(cls, values: Any) -> Learned:
        """Read a stored value; nothing is learned from one that does not fit, which an older version may have stored."""
        try:
            found = cls(
                token_limit_field=str(values.get("token_limit_field", "")),
                omitted=frozenset(map(str, values.get("omitted", []))),
                response_format=str(values.get("response_format", "")),
                most_top_logprobs=int(values.get("most_top_logprobs", 0)),
                least_tokens=int(values.get("least_tokens", 0)),
                n=str(values.get("n", "")),
                at=float(values.get("at", 0.0)),
            )
        except (AttributeError, TypeError, ValueError):
            return cls()
        return found if found.response_format in ("", *FORMATS) else replace(found, response_format="")


_lock = threading.Lock()
_known: dict[str, dict[str, Learned]] = {}


def recall(identity: str, model: str) -> Learned:
    """The learned facts about a model at the endpoint with this channel identity."""
    found = _known.get(identity, {}).get(model)
    return found if found is not None and time.time() - found.at < EXPIRES_S else Learned()


def learn(identity: str, model: str, change: Learned) -> Learned:
    """Add to what is known; returns all of it."""
    with _lock:
        merged = recall(identity, model).merged(replace(change, at=time.time()))
        _known.setdefault(identity, {})[model] = merged
    return merged


def exchange(identity: str, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Merge what other processes stored with what this one knows; returns it in the form in which it is stored."""
    now = time.time()
    with _lock:
        alive: dict[str, Learned] = {}
        theirs = [(model, Learned.from_json(values)) for model, values in stored.items()]
        for model, found in [*_known.get(identity, {}).items(), *theirs]:
            if now - found.at < EXPIRES_S and found != Learned():
                alive[model] = alive[model].merged(found) if model in alive else found
        newest = sorted(alive.items(), key=lambda item: -item[1].at)[:MOST_MODELS]
        _known[identity] = dict(newest)
    return {model: found.as_json() for model, found in sorted(newest)}


def forget_all() -> None:
    """Forget everything in this process."""
    with _lock:
        _known.clear()
