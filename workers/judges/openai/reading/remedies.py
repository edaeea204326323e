"""What helps against an unreadable reply, by the mode and by the kind of server that wrote it.

A remedy names a parameter of that server or an option that has an effect in that mode. Imports no Django.
"""

from __future__ import annotations

import enum
import re
from typing import Any


class Server(enum.Enum):
    """Kinds of server that a body gives away."""

    UNKNOWN = "unknown"
    OLLAMA = "ollama"
    LLAMA_CPP = "llama.cpp"
    VLLM = "vllm"
    SGLANG = "sglang"
    TGI = "tgi"
    OPENROUTER = "openrouter"
    GEMINI = "gemini"
    ANTHROPIC = "anthropic"
    MISTRAL = "mistral"
    OPENAI = "openai"


_TEMPLATE = 'extra_body {"chat_template_kwargs": {"enable_thinking": false}}'
_EFFORT = 'extra_body {"reasoning_effort": "none"}'
_THINKING_OFF = {
    Server.UNKNOWN: f"{_TEMPLATE} (vLLM, SGLang, llama.cpp) or {_EFFORT} (Ollama, Gemini, OpenAI)",
    Server.OLLAMA: _EFFORT,
    Server.LLAMA_CPP: f"{_TEMPLATE}, or start the server with --reasoning-budget 0",
    Server.VLLM: _TEMPLATE,
    Server.SGLANG: _TEMPLATE,
    Server.TGI: _TEMPLATE,
    Server.OPENROUTER: 'extra_body {"reasoning": {"enabled": false}}',
    Server.GEMINI: _EFFORT,
    Server.ANTHROPIC: 'extra_body {"thinking": {"type": "disabled"}}',
    Server.MISTRAL: "a model that does not reason",
    Server.OPENAI: 'extra_body {"reasoning_effort": "none"}, or "minimal" for older models',
}


def server_of(body: Any) -> Server:
    """The kind of server, by fields that only it sends; UNKNOWN where there are none."""
    if not isinstance(body, dict):
        return Server.UNKNOWN
    fingerprint, model = str(body.get("system_fingerprint") or ""), str(body.get("model") or "").lower()
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    if fingerprint == "fp_ollama" or "done_reason" in body:
        return Server.OLLAMA
    if "timings" in body or re.match(r"b\d+-", fingerprint):
        return Server.LLAMA_CPP
    if "matched_stop" in choice:
        return Server.SGLANG
    if "prompt_logprobs" in body or "kv_transfer_params" in body:
        return Server.VLLM
    if fingerprint.endswith("-native") or "generated_text" in body:
        return Server.TGI
    if "provider" in body or "native_finish_reason" in choice:
        return Server.OPENROUTER
    if fingerprint.startswith("fp_") or "x_groq" in body:
        return Server.OPENAI
    by_model = {"gemini": Server.GEMINI, "claude": Server.ANTHROPIC, "magistral": Server.MISTRAL}
    return next((server for prefix, server in by_model.items() if model.startswith(prefix)), Server.UNKNOWN)


def thinking_off(server: Server, mode: str) -> str:
    """How to have no thinking before the answer."""
    others = "" if mode == "reasoned" else ", or use the mode 'reasoned', which leaves room for it"
    return f"turn its thinking off with {_THINKING_OFF[server]}{others}"


def raise_the_limit(mode: str, token_limit: int | None, max_output_tokens: int | None, server: Server) -> str:
    """How to have an answer that is not cut off. `max_output_tokens` helps a vote only while it is below the mode's limit."""
    if mode == "reasoned":
        now = f" (now {max_output_tokens})" if max_output_tokens else ""
        return f"raise max_output_tokens{now}, or {thinking_off(server, mode)}"
    if token_limit and max_output_tokens and max_output_tokens <= token_limit and token_limit < 8:
        return f"raise max_output_tokens (now {max_output_tokens}) to 8 or more"
    allowed = f"at most {token_limit} tokens" if token_limit else "a few tokens"
    return f"the mode {mode!r} allows {allowed} for a letter: {thinking_off(server, mode)}"


def no_logprobs() -> str:
    return "use the mode 'sampled' or 'reasoned' for an endpoint without log-probabilities"


def missing_label(listed: int, asked: int | None) -> str:
    """A larger `top_logprobs` helps only where the server lists as many as it was asked for."""
    floor = "set missing_label to 'floor'"
    if asked is not None and listed < asked:
        return f"the server lists {listed} of the {asked} alternatives asked for: {floor}, or use the mode 'sampled'"
    return f"raise top_logprobs if the server allows more, or {floor}"


def enforce_json(response_format: str | None) -> str:
    """How to have one JSON object, by the `response_format` that was asked for."""
    if response_format == "none":
        return "set response_format to 'json_schema' or 'json_object' if the server enforces one, or use another model"
    if response_format == "json_object":
        return "set response_format to 'json_schema' if the server enforces it, or use another model"
    return "the server does not enforce the response_format 'json_schema': use the mode 'logprob' or 'sampled', or another model"
