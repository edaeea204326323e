"""Common servers with the OpenAI API: the values with which the form of a new endpoint starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.utils.translation import gettext_lazy

if TYPE_CHECKING:
    from django.utils.functional import _StrPromise


@dataclass(frozen=True, slots=True)
class Preset:
    """A provider or server: `base_url` up to `/chat/completions`; `note` says what to replace or to know.

    `settings` are further fields of `workers.endpoints.registry.Endpoint`.
    """

    name: str
    label: str
    base_url: str
    note: str | _StrPromise = ""
    needs_key: bool = True
    settings: Mapping[str, object] = field(default_factory=dict)


PRESETS = (
    Preset("openai", "OpenAI", "https://api.openai.com/v1"),
    Preset(
        "azure",
        "Azure OpenAI",
        "https://RESOURCE.openai.azure.com/openai/v1",
        gettext_lazy(
            "Replace RESOURCE by the name of your Azure resource; a judge’s model is the name of a deployment."
        ),
        settings={"key_header": "api-key", "key_prefix": ""},
    ),
    Preset("mistral", "Mistral", "https://api.mistral.ai/v1"),
    Preset("gemini", "Gemini", "https://generativelanguage.googleapis.com/v1beta/openai"),
    Preset(
        "anthropic",
        "Anthropic",
        "https://api.anthropic.com/v1",
        gettext_lazy("This API ignores logprobs and response_format; use the judge’s mode reasoned."),
    ),
    Preset("openrouter", "OpenRouter", "https://openrouter.ai/api/v1"),
    Preset("together", "Together", "https://api.together.xyz/v1"),
    Preset("vllm", "vLLM", "http://localhost:8000/v1", needs_key=False),
    Preset("ollama", "Ollama", "http://localhost:11434/v1", needs_key=False),
    Preset("llamacpp", "llama.cpp", "http://localhost:8080/v1", needs_key=False),
    Preset("lmstudio", "LM Studio", "http://localhost:1234/v1", needs_key=False),
    Preset("tgi", "TGI", "http://localhost:8080/v1", needs_key=False),
    Preset("sglang", "SGLang", "http://localhost:30000/v1", needs_key=False),
)


def find_preset(name: str) -> Preset | None:
    """The preset of that name, or None."""
    return next((preset for preset in PRESETS if preset.name == name), None)
