"""Prompts of external rerankers whose server adds none: templates around queries and documents. Imports no Django.

`{query}`, `{document}` and `{instruction}` are placeholders; all other braces stay. docs/evaluation.md names the templates
of well-known models.
"""

from __future__ import annotations

import re
from typing import Annotated

import pydantic

QUERY, DOCUMENT, INSTRUCTION = "{query}", "{document}", "{instruction}"
_PLACEHOLDER = re.compile(r"\{(query|document|instruction)\}")

Template = Annotated[str, pydantic.Field(max_length=10_000)]


def check_templates(query: str, document: str, instruction: str) -> None:
    """Raise ValueError unless each template holds its text once and no other, and an instruction has a place."""
    for name, template, text, other in (
        ("query_template", query, QUERY, DOCUMENT),
        ("document_template", document, DOCUMENT, QUERY),
    ):
        if template.count(text) != 1 or other in template:
            raise ValueError(f"{name} must hold {text} once, and no {other}")
    if INSTRUCTION in document:
        raise ValueError(f"document_template must hold no {INSTRUCTION}; put it into query_template")
    if instruction and INSTRUCTION not in query:
        raise ValueError(f"instruction has no place: query_template holds no {INSTRUCTION}")


def filled(template: str, **texts: str) -> str:
    """The template with its placeholders replaced; placeholders that the texts spell stay."""
    return _PLACEHOLDER.sub(lambda found: texts[found[1]], template)
