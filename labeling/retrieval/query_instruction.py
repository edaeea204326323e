"""The instruction of a query: what judges are told about it, and what students may read before it. Pure.

A query's own instruction is the text under `instruction` in its metadata; without one the project's instruction holds. Imports no
Django.
"""

from __future__ import annotations

from typing import Any

FIELD = "instruction"
# What `str.strip` takes away, as numbers for SQL: btrim alone takes blanks.
_WHITESPACE = " || ".join(f"chr({code})" for code in range(1, 0x3001) if chr(code).isspace())
# The same in SQL, for a query and its project under these names.
SQL = (
    f"COALESCE(CASE WHEN jsonb_typeof(query.metadata -> '{FIELD}') = 'string' "
    f"THEN NULLIF(btrim(query.metadata ->> '{FIELD}', {_WHITESPACE}), '') END, project.instruction)"
)


def instruction_of(own: Any, project: str) -> str:
    """The query's own instruction (the value in its metadata), or else the project's."""
    return own.strip() if isinstance(own, str) and own.strip() else project


def with_instruction(query: str, instruction: str) -> str:
    """The text that a student reads as query: the instruction on the lines before it, or the query alone without one."""
    told = instruction.strip()
    return f"{told}\n{query}" if told else query
