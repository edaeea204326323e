"""The table of fields and dialects in docs/serving.md, cell by cell: honoured, not used with a warning, or refused by name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.processes.serve import serving
from trainer.serving.instructions import warnings_of

DOCS = Path(__file__).parents[3] / "docs" / "serving.md"
TEXTS = ["a pond with goldfish", "bread from the oven", "water"]
LONG = "water " * 3000
FORMS: dict[str, tuple[str, dict[str, Any]]] = {
    "Cohere": ("/v2/rerank", {"query": "goldfish", "documents": TEXTS}),
    "Jina": ("/v1/rerank", {"query": "goldfish", "documents": TEXTS}),
    "Voyage": ("/v1/rerank", {"query": "goldfish", "documents": TEXTS}),
    "vLLM rerank": ("/rerank", {"query": "goldfish", "documents": TEXTS}),
    "vLLM score": ("/score", {"text_1": "goldfish", "text_2": TEXTS}),
    "TEI": ("/rerank", {"query": "goldfish", "texts": TEXTS}),
    "llama.cpp": ("/v1/reranking", {"query": "goldfish", "documents": TEXTS}),
    "Infinity": ("/rerank", {"query": "goldfish", "documents": TEXTS}),
}
# What is sent for a field of which the table names no value.
VALUES: dict[str, Any] = {
    "model": "tiny", "top_n": 2, "top_k": 2, "return_documents": True, "return_text": True, "raw_scores": True,
    "rank_fields": ["title"], "max_tokens_per_doc": 1, "max_chunks_per_doc": 5, "instruction": "find the fish",
    "priority": 3, "user": "emmy", "mm_processor_kwargs": {}, "any other field": 1,
}  # fmt: skip


def cells() -> list[tuple[str, str, str]]:
    """Every cell of the table: the field as written, the dialect, and H, W, R or –."""
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("|")]
    (head,) = [number for number, line in enumerate(lines) if line.startswith("| field | Cohere |")]
    names = [each.strip() for each in lines[head].strip("|").split("|")][1:]
    found = []
    for line in lines[head + 2 :]:
        field, *row = (each.strip() for each in line.strip("|").split("|"))
        if len(row) != len(names):
            break
        found += [(field, name, cell) for name, cell in zip(names, row, strict=True)]
    return found


CELLS = cells()


@pytest.fixture(scope="module")
def address(published_encoder: Path) -> Iterator[str]:
    with serving(published_encoder) as url:
        yield url


def sent(field: str) -> tuple[str, Any]:
    """The name and value of a field that the table writes as `name` or `name: value`."""
    written = field.strip("`")
    name, colon, value = written.partition(": ")
    return ("surprise" if name == "any other field" else name), (json.loads(value) if colon else VALUES[name])


def test_the_table_has_every_dialect_and_every_field_that_the_code_knows() -> None:
    assert {name for _, name, _ in CELLS} == set(FORMS) and {cell for _, _, cell in CELLS} == {"H", "W", "R", "–"}
    listed = {sent(field)[0] for field, _, _ in CELLS}
    source = (Path(warnings_of.__code__.co_filename).parent / "protocols.py").read_text()
    known = set(re.findall(r'"((?:truncat(?!ed_)|return_|raw_|rank_|max_|top_|use_|instr)\w*)"', source))
    assert known - {"truncate_prompt_tokens", "return_text"} <= listed | {"return_text"}


@pytest.mark.parametrize(("field", "dialect", "cell"), [each for each in CELLS if each[2] != "–"])
def test_a_cell_says_what_happens(field: str, dialect: str, cell: str, address: str) -> None:
    name, value = sent(field)
    path, plain = FORMS[dialect]
    body = plain | {name: value}
    if name == "rank_fields":
        body["documents"] = [{"text": "-", "title": each} for each in TEXTS]
    without, found = (httpx.post(f"{address}{path}", json=each, timeout=30) for each in (plain, body))
    assert without.status_code == 200
    if cell == "R":
        assert found.status_code == 422 and name in found.json()["message"]
        return
    assert found.status_code == 200
    warnings = warned(found)
    if cell == "W":
        assert f"{name} is not used" in warnings
        return
    assert not any(name in each and "is not used" in each for each in warnings) or name == "instruction"
    _check_effect(address, path, body, name, found.json(), without.json())


def warned(answer: httpx.Response) -> list[str]:
    if isinstance(answer.json(), list):
        return answer.headers.get("x-zelo-warnings", "").split("; ")
    found: list[str] = answer.json()["meta"].get("warnings", [])
    return found


def _rows(answer: Any) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = answer if isinstance(answer, list) else answer.get("results") or answer["data"]
    return rows


def _scores(answer: Any) -> dict[int, float]:
    return {row["index"]: row.get("relevance_score", row.get("score")) for row in _rows(answer)}


def _check_effect(address: str, path: str, body: dict[str, Any], name: str, found: Any, plain: Any) -> None:
    """A field that is honoured changes the answer as it says."""
    if name in ("top_n", "top_k"):
        assert len(_rows(found)) == (body[name] or len(TEXTS))
    elif name in ("return_documents", "return_text"):
        assert all(row.get("text") or row.get("document") for row in _rows(found))
    elif name in ("raw_scores", "use_activation"):
        assert _scores(found) != pytest.approx(_scores(plain), abs=1e-3)
    elif name in ("truncate", "truncation"):
        key = "texts" if "texts" in body else "documents"
        refused = httpx.post(f"{address}{path}", json=body | {key: [LONG]}, timeout=30)
        assert refused.status_code == 422 and "would be truncated" in refused.json()["message"]
    elif name == "rank_fields":
        assert _scores(found) == pytest.approx(_scores(plain), abs=1e-5)
    elif name == "max_tokens_per_doc":
        assert _scores(found) != pytest.approx(_scores(plain), abs=1e-5)
    elif name == "model":
        wrong = httpx.post(f"{address}{path}", json=body | {"model": "other"}, timeout=30)
        assert wrong.status_code == 404
