"""Recognises the kind of server behind an endpoint, and says what helps on that kind.

A failure's own message has its remedy; pages and commands add none. Imports no Django.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Server:
    """One kind of server: how it switches thinking off, gives log-probabilities, and gets a longer context."""

    name: str
    thinking_off: str = "use a model that does not think before it answers, or the mode 'reasoned'"
    logprobs: str = "use the mode 'reasoned', which needs no log-probabilities"
    longer_context: str = "or use a model with a longer context"


_TEMPLATE = 'set extra_body to {"chat_template_kwargs": {"enable_thinking": false}}'
_EFFORT = 'set extra_body to {"reasoning_effort": "none"}'

SERVERS: Mapping[str, Server] = {
    # docs.vllm.ai: "Reasoning Outputs"; --max-model-len, --max-logprobs in "Engine Arguments".
    "vllm": Server("vLLM", _TEMPLATE, longer_context="or start vLLM with a larger --max-model-len"),
    # docs.sglang.ai: "Reasoning Parser"; --context-length in "Server Arguments".
    "sglang": Server("SGLang", _TEMPLATE, longer_context="or start SGLang with a larger --context-length"),
    # llama.cpp, tools/server/README.md: chat_template_kwargs, --reasoning-budget, --ctx-size.
    "llama.cpp": Server(
        "llama.cpp",
        f"{_TEMPLATE}, or start llama-server with --reasoning-budget 0",
        longer_context="or start llama-server with a larger --ctx-size (it is divided among --parallel slots)",
    ),
    # llama-cpp-python, llama_cpp/server/settings.py: n_ctx and logits_all; no field of a request switches thinking off.
    "llama-cpp-python": Server(
        "llama-cpp-python",
        logprobs="start the server with --logits_all true, or use the mode 'reasoned'",
        longer_context="or start the server with a larger --n_ctx",
    ),
    # Ollama, docs/api/openai-compatibility (reasoning_effort "none"; `think` works on its own API only), docs/faq (context).
    "ollama": Server(
        "Ollama",
        _EFFORT,
        logprobs="update Ollama to 0.12.11 or later, or use the mode 'reasoned'",
        longer_context="or start Ollama with a larger OLLAMA_CONTEXT_LENGTH",
    ),
    # TGI, "Launcher arguments": --max-input-tokens, --max-total-tokens; its chat API has no field for thinking.
    "tgi": Server("TGI", longer_context="or start TGI with larger --max-input-tokens and --max-total-tokens"),
    # LM Studio: "Enable Thinking" and "Context Length" are settings of the loaded model.
    "lm-studio": Server(
        "LM Studio",
        "switch 'Enable Thinking' off in the model's settings",
        longer_context="or load the model with a larger Context Length",
    ),
    # platform.openai.com: reasoning models accept reasoning_effort "none" or "minimal", and return no log-probabilities.
    "openai": Server("OpenAI", f'{_EFFORT}, or to {{"reasoning_effort": "minimal"}} for models that reject it'),
    "azure": Server("Azure OpenAI", f'{_EFFORT}, or to {{"reasoning_effort": "minimal"}} for models that reject it'),
    # ai.google.dev, "OpenAI compatibility": reasoning_effort "none" for 2.5 models, "low" where thinking cannot be switched off.
    "gemini": Server("Gemini", f'{_EFFORT}, or to {{"reasoning_effort": "low"}} for models that always think'),
    # docs.mistral.ai, "Reasoning": only the Magistral models think; prompt_mode null leaves their instruction out.
    "mistral": Server("Mistral", 'set extra_body to {"prompt_mode": null}'),
    # docs.anthropic.com, "OpenAI SDK compatibility": logprobs are ignored; thinking is off unless it is asked for.
    "anthropic": Server("Anthropic", 'remove "thinking" from extra_body'),
}
UNKNOWN = Server("")

_HOSTS = {
    "openai.azure.com": "azure",
    "cognitiveservices.azure.com": "azure",
    "services.ai.azure.com": "azure",
    "api.openai.com": "openai",
    "api.mistral.ai": "mistral",
    "generativelanguage.googleapis.com": "gemini",
    "aiplatform.googleapis.com": "gemini",
    "api.anthropic.com": "anthropic",
    "ollama.com": "ollama",
}
_HEADERS = {
    "apim-request-id": "azure",
    "anthropic-organization-id": "anthropic",
    "openai-processing-ms": "openai",
    "x-compute-type": "tgi",
}
# An UUID with hyphens, as llama-cpp-python numbers completions; vLLM writes 32 digits without.
_UUID = re.compile(r"chatcmpl-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_SAID = {
    "llama-cpp-python": re.compile(r"exceed context window of|logits_all|could not broadcast input array|\.gguf\b"),
    "ollama": re.compile(r"\bollama\b", re.IGNORECASE),
    "vllm": re.compile(r"\bvllm\b|max_model_len", re.IGNORECASE),
    "sglang": re.compile(r"\bsglang\b|tokens\) is longer than the model's context", re.IGNORECASE),
    "tgi": re.compile(r"`?max_new_tokens`? must be|text-generation", re.IGNORECASE),
    "llama.cpp": re.compile(r"exceed_context_size_error|available context size|llama-server"),
    "lm-studio": re.compile(r"lm ?studio", re.IGNORECASE),
}


def server_of(base_url: str, headers: Mapping[str, str], body: Any = None, said: str = "") -> Server:
    """The kind of server, by its address, the headers and the JSON of a reply, and the text of an error; UNKNOWN if unsure."""
    found = _by_address(base_url) or _by_headers(headers) or _by_body(body) or _by_text(said)
    return SERVERS.get(found, UNKNOWN)


def _by_address(base_url: str) -> str:
    parts = urlsplit(base_url)
    host = (parts.hostname or "").lower()
    for ending, family in _HOSTS.items():
        if host == ending or host.endswith(f".{ending}"):
            return family
    return {11434: "ollama", 1234: "lm-studio"}.get(parts.port or 0, "")


def _by_headers(headers: Mapping[str, str]) -> str:
    if headers.get("server", "").lower() == "llama.cpp":
        return "llama.cpp"
    return next((family for name, family in _HEADERS.items() if name in headers), "")


def _by_body(body: Any) -> str:
    """By the fields that only one kind of server adds to a completion."""
    if not isinstance(body, dict):
        return ""
    choices = body.get("choices")
    first = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    mark = str(body.get("system_fingerprint") or "")
    if mark == "fp_ollama":
        return "ollama"
    if "timings" in body:
        return "llama.cpp"
    if "matched_stop" in first:
        return "sglang"
    if "prompt_logprobs" in body or "kv_transfer_params" in body:
        return "vllm"
    if "-sha-" in mark or "-native" in mark:
        return "tgi"
    if isinstance(body.get("stats"), dict):
        return "lm-studio"
    return "llama-cpp-python" if _UUID.fullmatch(str(body.get("id") or "")) else ""


def _by_text(said: str) -> str:
    return next((family for family, pattern in _SAID.items() if pattern.search(said)), "")
