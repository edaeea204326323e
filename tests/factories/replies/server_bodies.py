"""Replies as known servers write them, with what each states: P(first document), None for nothing.

The shapes follow the servers' documentation and reports of their users; texts are shortened.
"""

from __future__ import annotations

import json
import math
from typing import Any

from tests.factories.replies.odd_bodies import OddBody

ANSWER = '{"reasoning": "B answers it.", "score": -0.9}'
DECOY = '{"reasoning": "A has the words.", "score": 0.9}'
STATED = 0.05


def _chat(
    content: Any, finish: str | None = "stop", *, body: dict[str, Any] | None = None, **message: Any
) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **message}, "finish_reason": finish}
    return {"id": "chatcmpl-7", "object": "chat.completion", "model": "m", "choices": [choice], **(body or {})}


def _tokens(*rows: tuple[str, float | None], chosen: str | None = None, **more: Any) -> dict[str, Any]:
    listed = [{"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in rows]
    first = next((row for row in listed if row["token"] == chosen), listed[0])
    body = _chat(first["token"].strip(), "length", **more)
    body["choices"][0]["logprobs"] = {"content": [{**first, "top_logprobs": listed}], "refusal": None}
    return body


P = 1 / (1 + math.exp(-2.3))  # of log-probabilities -0.1 and -2.4


def scores() -> list[OddBody]:
    """Replies of the mode reasoned."""
    ollama = {"system_fingerprint": "fp_ollama"}
    llama_cpp = {"system_fingerprint": "b6017-bb4f7a9e", "timings": {"prompt_n": 1, "predicted_n": 12}}
    vllm = {"service_tier": None, "prompt_logprobs": None, "kv_transfer_params": None}
    azure = {"prompt_filter_results": [{"prompt_index": 0, "content_filter_results": {}}], "system_fingerprint": "fp_1"}
    gemini = {"model": "gemini-2.5-flash", "usage": {"prompt_tokens": 9, "total_tokens": 99}}
    rows: list[tuple[str, dict[str, Any], float | None]] = [
        ("openai", _chat(ANSWER, refusal=None, annotations=[], body={"system_fingerprint": "fp_1"}), STATED),
        ("openai, refusal", _chat(None, refusal="I'm sorry, I can't help with that."), None),
        ("openai, all tokens spent on reasoning", _chat("", "length", refusal=None), None),
        ("azure", _chat(ANSWER, body=azure), STATED),
        ("azure, filtered", _chat("", "content_filter", body=azure), None),
        ("vllm, reasoning parser", _chat(ANSWER, reasoning_content=DECOY, tool_calls=[], body=vllm), STATED),
        ("vllm, new name of the field", _chat(ANSWER, reasoning=DECOY, tool_calls=[], body=vllm), STATED),
        ("vllm, parser took the answer", _chat(None, reasoning_content=ANSWER, tool_calls=[], body=vllm), None),
        ("vllm, template opens <think>", _chat(f"{DECOY} but B.</think>\n\n{ANSWER}", body=vllm), STATED),
        ("vllm, stop_reason is a token", {**_chat(ANSWER, body=vllm), "stop_reason": 128009}, STATED),
        ("vllm, thinking cut off", _chat(f"<think>maybe {DECOY} hmm", "length", body=vllm), None),
        ("llama.cpp", _chat(ANSWER, body=llama_cpp), STATED),
        ("llama.cpp, --reasoning-format none", _chat(f"<think>\n{DECOY}\n</think>\n{ANSWER}", body=llama_cpp), STATED),
        ("llama.cpp, gpt-oss unparsed", _chat(
            f"<|channel|>analysis<|message|>{DECOY}<|end|><|start|>assistant<|channel|>final<|message|>{ANSWER}"
        ), STATED),
        ("ollama, thinking field", _chat(ANSWER, reasoning=DECOY, body=ollama), STATED),
        ("ollama, thinking took the limit", _chat("", "length", reasoning=DECOY, body=ollama), None),
        ("ollama, native", {"model": "m", "message": {"role": "assistant", "content": ANSWER, "thinking": DECOY},
                            "done": True, "done_reason": "stop"}, STATED),
        ("ollama, native, cut", {"model": "m", "message": {"content": ANSWER}, "done": True, "done_reason": "length"}, None),
        ("ollama, native, not done", {"model": "m", "message": {"content": ANSWER}, "done": False}, None),
        ("tgi", _chat(ANSWER, "eos_token", body={"system_fingerprint": "3.3.4-native"}), STATED),
        ("tgi, native", {"generated_text": ANSWER, "details": {"finish_reason": "eos_token"}}, STATED),
        ("tgi, native, cut", {"generated_text": ANSWER, "details": {"finish_reason": "length"}}, None),
        ("sglang", {**_chat(ANSWER, reasoning_content=None), "metadata": {"weight_version": "default"}}, STATED),
        ("lm studio", _chat(ANSWER, body={"stats": {}, "system_fingerprint": "qwen3-4b"}), STATED),
        ("lm studio, gpt-oss", _chat(ANSWER, reasoning=DECOY, body={"stats": {}}), STATED),
        ("magistral, parts", _chat([
            {"type": "thinking", "thinking": [{"type": "text", "text": DECOY}], "closed": True},
            {"type": "text", "text": ANSWER},
        ]), STATED),
        ("magistral, text", _chat(f"[THINK]{DECOY}[/THINK]{ANSWER}"), STATED),
        ("mistral, model_length", _chat(ANSWER, "model_length"), None),
        ("gemini", _chat(f"```json\n{ANSWER}\n```", body=gemini), STATED),
        ("gemini, thoughts in the text", _chat(f"<thought>{DECOY}</thought>{ANSWER}", body=gemini), STATED),
        ("gemini, no content at the limit", {"choices": [{"finish_reason": "length", "index": 0, "message": {"role": "assistant"}}]}, None),
        ("gemini, native", {"candidates": [{"content": {"role": "model", "parts": [
            {"text": DECOY, "thought": True}, {"text": ANSWER}]}, "finishReason": "STOP"}]}, STATED),
        ("gemini, native, MAX_TOKENS", {"candidates": [{"content": {"parts": [{"text": ANSWER}]}, "finishReason": "MAX_TOKENS"}]}, None),
        ("gemini, native, SAFETY", {"candidates": [{"finishReason": "SAFETY"}]}, None),
        ("anthropic's compatibility layer", _chat(ANSWER, body={"model": "claude-haiku-4-5", "service_tier": None}), STATED),
        ("anthropic, native", {"type": "message", "role": "assistant", "stop_reason": "end_turn", "content": [
            {"type": "thinking", "thinking": DECOY, "signature": "x"}, {"type": "redacted_thinking", "data": "x"},
            {"type": "text", "text": ANSWER}]}, STATED),
        ("anthropic, native, max_tokens", {"type": "message", "stop_reason": "max_tokens", "content": [{"type": "text", "text": ANSWER}]}, None),
        ("litellm, thinking_blocks", _chat(ANSWER, reasoning_content=DECOY, thinking_blocks=[{"type": "thinking", "thinking": DECOY}]), STATED),
        ("litellm, tool for the schema", _chat(None, "tool_calls", tool_calls=[
            {"id": "x", "type": "function", "function": {"name": "json_tool_call", "arguments": ANSWER}}]), None),
        ("openrouter", {**_chat(ANSWER, reasoning=DECOY, reasoning_details=[{"type": "reasoning.text", "text": DECOY}]), "provider": "x"}, STATED),
        ("openrouter, native reason", {"choices": [{"finish_reason": "stop", "native_finish_reason": "MAX_TOKENS", "message": {"content": ANSWER}}]}, None),
        ("openrouter, error in the choice", {"choices": [{"finish_reason": "error", "message": {"content": ANSWER},
                                                          "error": {"code": 502, "message": "upstream"}}]}, None),
        ("deepseek", _chat(ANSWER, reasoning_content=DECOY), STATED),
        ("responses", {"object": "response", "status": "completed", "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": DECOY}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": ANSWER, "annotations": []}]}]}, STATED),
        ("responses, incomplete", {"status": "incomplete", "output": [
            {"type": "message", "content": [{"type": "output_text", "text": ANSWER}]}]}, None),
        ("legacy completion", {"object": "text_completion", "choices": [{"text": f" {ANSWER}", "finish_reason": "stop", "logprobs": None}]}, STATED),
        ("gpt-oss without special tokens", _chat(f"analysisWe need JSON: {DECOY}assistantfinal{ANSWER}"), STATED),
        ("granite", _chat(f"Here is my thought process: {DECOY}\nHere is my response: {ANSWER}"), STATED),
        ("kimi", _chat(f"◁think▷{DECOY}◁/think▷{ANSWER}"), STATED),
        ("seed", _chat(f"<seed:think>{DECOY}<seed:cot_budget_reflect>x</seed:cot_budget_reflect></seed:think>{ANSWER}"), STATED),
        ("medgemma", _chat(f"<unused94>thought\n{DECOY}<unused95>{ANSWER}"), STATED),
        ("command a", _chat(f"<|START_THINKING|>{DECOY}<|END_THINKING|><|START_RESPONSE|>{ANSWER}<|END_RESPONSE|>"), STATED),
        ("glm-4.5v", _chat(f"<think>{DECOY}</think><|begin_of_box|>{ANSWER}<|end_of_box|>"), STATED),
        ("hunyuan", _chat(f"<think>{DECOY}</think>\n<answer>\n{ANSWER}\n</answer>"), STATED),
        ("a piece of a stream", {"object": "chat.completion.chunk", "choices": [{"delta": {"content": ANSWER}, "finish_reason": None}]}, None),
        ("parsed by a gateway", _chat(json.loads(ANSWER)), STATED),
        ("encoded twice", _chat(json.dumps(ANSWER)), STATED),
        ("double braces", _chat("{" + ANSWER + "}"), STATED),
        ("wrapped in the schema's name", _chat(f'{{"comparison": {ANSWER}}}'), STATED),
        ("a tag named in the reasoning", _chat('{"reasoning": "A explains the <think> tag.", "score": -0.9}'), STATED),
        ("thinking closed under any name", _chat(f"First {DECOY}\n</deliberation>\n{ANSWER}"), STATED),
        ("thinking closed and nothing after", _chat(f"First {DECOY}\n</deliberation>"), None),
    ]  # fmt: skip
    return [OddBody("reasoned", body, truth, name) for name, body, truth in rows]


def votes() -> list[OddBody]:
    """Replies of the mode sampled, one choice each."""
    rows: list[tuple[str, dict[str, Any], float | None]] = [
        ("openai", _chat("B"), 0.0),
        ("vllm, limit of one token", _chat("B", "length"), None),
        ("ollama, thinking cut off", _chat("<think>\nOkay, A", "length"), None),
        ("deepseek", _chat("B", reasoning_content="A or B? A."), 0.0),
        ("magistral", _chat([{"type": "thinking", "thinking": [{"type": "text", "text": "A"}]}, {"type": "text", "text": "B"}]), 0.0),
        ("unknown element", _chat("<plan>A</plan>\nB"), 0.0),
        ("strike-through", _chat("~~A~~ B"), None),
        ("both in one word", _chat("A->B"), None),
    ]  # fmt: skip
    return [OddBody("sampled", body, truth, name) for name, body, truth in rows]


def logprobs() -> list[OddBody]:
    """Replies of the mode logprob."""
    legacy = {"text": "A", "finish_reason": "length", "logprobs": {
        "tokens": ["A"], "token_logprobs": [-0.1], "top_logprobs": [{"A": -0.1, " B": -2.4}], "text_offset": [0]}}  # fmt: skip
    two_tokens = _tokens(("A", -0.1), ("B", -2.4))
    two_tokens["choices"][0]["logprobs"]["content"].insert(
        0, {"token": "\n\n", "logprob": 0.0, "bytes": [10, 10], "top_logprobs": []}
    )
    tgi = {"generated_text": "A", "details": {"finish_reason": "length", "tokens": [{"id": 1, "text": "A", "logprob": -0.1, "special": False}],
           "top_tokens": [[{"id": 1, "text": "A", "logprob": -0.1}, {"id": 2, "text": " B", "logprob": -2.4}]]}}  # fmt: skip
    gemini = {"candidates": [{"content": {"parts": [{"text": "A"}]}, "finishReason": "MAX_TOKENS", "logprobsResult": {
        "chosenCandidates": [{"token": "A", "logProbability": -0.1}],
        "topCandidates": [{"candidates": [{"token": "A", "logProbability": -0.1}, {"token": "B", "logProbability": -2.4}]}]}}]}  # fmt: skip
    harmony = _tokens(("<|channel|>", -0.001), ("A", -8.0), ("B", -9.0))
    rows: list[tuple[str, dict[str, Any], float | None, str]] = [
        ("openai", _tokens(("A", -0.1), ("B", -2.4)), P, "fail"),
        ("openai, absent tokens", _tokens(("A", -0.1), ("B", -2.4), (" A", -9999.0)), P, "fail"),
        ("vllm, padding is null", _tokens(("A", -0.1), ("B", -2.4), ("<pad>", None)), P, "fail"),
        ("vllm, -inf beside", _tokens(("A", -0.1), ("B", -2.4), ("C", -math.inf)), P, "fail"),
        ("vllm, ids of tokens", _tokens(("token_id:32", -0.1), ("token_id:33", -2.4)), None, "fail"),
        ("vllm, thinking model", _tokens(("<think>", -0.001), ("A", -8.0), ("B", -8.0)), None, "floor"),
        ("vllm, <think> in the template", _tokens(("Okay", -0.1), ("A", -3.0), ("B", -4.0)), None, "floor"),
        ("gpt-oss", harmony, None, "floor"),
        ("llama-cpp-python, legacy shape", {"choices": [legacy]}, P, "fail"),
        ("llama.cpp, a newline first", two_tokens, P, "fail"),
        ("sentencepiece", _tokens(("▁A", -0.1), ("▁B", -2.4)), P, "fail"),
        ("byte-level", _tokens(("ĠA", -0.1), ("ĠB", -2.4)), P, "fail"),
        ("byte fallback", _tokens(("<0x41>", -0.1), ("<0x42>", -2.4)), P, "fail"),
        ("lower case", _tokens(("a", -0.1), ("b", -2.4)), P, "fail"),
        ("the article a", _tokens(("A", -0.1), ("B", -2.6), ("a", -4.0)), 1 / (1 + math.exp(-2.5)), "fail"),
        ("padded", _tokens(("**A", -0.1), ('"B', -2.4)), P, "fail"),
        ("tgi, native", tgi, P, "fail"),
        ("gemini, native", gemini, P, "fail"),
        ("together, no alternatives", {"choices": [{"message": {"content": "A"}, "finish_reason": "length", "logprobs": {
            "tokens": ["A"], "token_logprobs": [-0.1], "token_ids": [32]}}]}, None, "floor"),
        ("openai, no alternatives", {"choices": [{"message": {"content": "A"}, "logprobs": {"content": [
            {"token": "A", "logprob": -0.01, "top_logprobs": []}]}}]}, None, "floor"),
        ("a floor above 1 - P(A)", _tokens(("A", -0.01), ("The", -4.7)), 1 / (1 + (1 - math.exp(-0.01)) / math.exp(-0.01))
            if 1 - math.exp(-0.01) < math.exp(-4.7) else 1 / (1 + math.exp(-4.7 + 0.01)), "floor"),
        ("-inf on a label, one token", _tokens(("A", -0.1), ("B", -math.inf)), None, "floor"),
        ("null on a label", _tokens(("A", -0.1), ("B", None), ("C", -3.0)), None, "floor"),
        ("probabilities, no logarithms", _tokens(("A", 0.9), ("B", 0.1)), None, "fail"),
        ("same token twice", _tokens(("A", -0.1), ("A", -0.1), ("B", -2.4)), P, "fail"),
        ("no log-probabilities", _chat("A"), None, "fail"),
        ("deepseek, thinking", _tokens(("A", -0.1), ("B", -2.4), reasoning_content="Let me see."), P, "fail"),
        ("vllm, thinking counted as tokens", {"choices": [{"message": {"content": None, "reasoning_content": "A"},
            "finish_reason": "length", "logprobs": {"content": [{"token": "A", "logprob": -0.1, "top_logprobs": [
                {"token": "A", "logprob": -0.1}, {"token": "B", "logprob": -2.4}]}]}}]}, None, "fail"),
    ]  # fmt: skip
    return [OddBody("logprob", body, truth, name, missing) for name, body, truth, missing in rows]


def server_bodies() -> list[OddBody]:
    """All of them."""
    return [*scores(), *votes(), *logprobs()]
