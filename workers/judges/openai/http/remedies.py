"""Recognises the kind of server behind an endpoint, and says what helps on that kind and in that mode.

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
    thinking_off: str = "use a model that does not think before it answers"
    logprobs: str = "use the mode 'sampled' or 'reasoned', which need no log-probabilities"
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
    # openrouter.ai/docs: "Reasoning Tokens".
    "openrouter": Server("OpenRouter", 'set extra_body to {"reasoning": {"enabled": false}}'),
}
UNKNOWN = Server(
    "", f'{_TEMPLATE} (vLLM, SGLang, llama.cpp) or to {{"reasoning_effort": "none"}} (Ollama, Gemini, OpenAI)'
)

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
    "openrouter.ai": "openrouter",
}
_HEADERS = {
    "apim-request-id": "azure",
    "anthropic-organization-id": "anthropic",
    "openai-processing-ms": "openai",
    "x-compute-type": "tgi",
}
# An UUID with hyphens, as llama-cpp-python numbers completions; vLLM writes 32 digits without.
_UUID = re.compile(r"chatcmpl-[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
# Models that one provider's own endpoints serve.
_MODELS = {"gemini": "gemini", "claude": "anthropic", "magistral": "mistral"}
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
    if mark == "fp_ollama" or "done_reason" in body:
        return "ollama"
    if "timings" in body or re.match(r"b\d+-", mark):
        return "llama.cpp"
    if "matched_stop" in first:
        return "sglang"
    if "prompt_logprobs" in body or "kv_transfer_params" in body:
        return "vllm"
    if "-sha-" in mark or "-native" in mark or "generated_text" in body:
        return "tgi"
    if "provider" in body or "native_finish_reason" in first:
        return "openrouter"
    if isinstance(body.get("stats"), dict):
        return "lm-studio"
    if _UUID.fullmatch(str(body.get("id") or "")):
        return "llama-cpp-python"
    model = str(body.get("model") or "").lower()
    return next((family for prefix, family in _MODELS.items() if model.startswith(prefix)), "")


def _by_text(said: str) -> str:
    return next((family for family, pattern in _SAID.items() if pattern.search(said)), "")


# --- what helps against an unreadable reply, by the mode ------------------------------------


def thinking_off(server: Server, mode: str) -> str:
    """The remedy that turns off thinking before the answer."""
    others = "" if mode == "reasoned" else ", or use the mode 'reasoned', which leaves room for it"
    return f"turn its thinking off: {server.thinking_off}{others}"


def no_logprobs(server: Server | None = None) -> str:
    """The remedy where log-probabilities are of no use, or, with `server`, where that server sends none."""
    return (server or UNKNOWN).logprobs


def raise_the_limit(mode: str, token_limit: int | None, max_output_tokens: int | None, server: Server) -> str:
    """The remedy for an answer that was cut off. `max_output_tokens` helps a vote only while it is below the mode's limit."""
    if mode == "reasoned":
        now = f" (now {max_output_tokens})" if max_output_tokens else ""
        return f"raise max_output_tokens{now}, or {thinking_off(server, mode)}"
    if token_limit and max_output_tokens and max_output_tokens <= token_limit and token_limit < 8:
        return f"raise max_output_tokens (now {max_output_tokens}) to 8 or more"
    allowed = f"at most {token_limit} tokens" if token_limit else "a few tokens"
    return f"the mode {mode!r} allows {allowed} for a letter: {thinking_off(server, mode)}"


def missing_label(listed: int, asked: int | None) -> str:
    """A larger `top_logprobs` helps only where the server lists as many as it was asked for."""
    floor = "set missing_label to 'floor'"
    if asked is not None and listed < asked:
        return f"the server lists {listed} of the {asked} alternatives asked for: {floor}, or use the mode 'sampled'"
    return f"raise top_logprobs if the server allows more, or {floor}"


def enforce_json(response_format: str | None) -> str:
    """The remedy that enforces one JSON object, by the requested `response_format`."""
    if response_format == "none":
        return "set response_format to 'json_schema' or 'json_object' if the server enforces one, or use another model"
    if response_format == "json_object":
        return "set response_format to 'json_schema' if the server enforces it, or use another model"
    return "the server does not enforce the response_format 'json_schema': use the mode 'logprob' or 'sampled', or another model"
