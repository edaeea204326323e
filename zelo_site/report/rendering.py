"""Writes a report as one HTML file without external parts, as Markdown, and as plain values for REST."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

from django.template.loader import render_to_string

from zelo_site.report.document import Block, Facts, Report, Table, Text

# What Markdown or a table cell would read as markup: characters, an entity, the beginning of a heading, list or rule.
_SPECIAL = re.compile(r"([\\`*_\[\]<>|~]|&(?=#?\w+;)|^[#+=-](?=[\s=-]|$))")
_NUMBERED = re.compile(r"^([0-9]{1,9})([.)])(?=\s|$)")


def as_html(report: Report) -> str:
    """Return a complete HTML document with its styles, which prints without a browser's help."""
    return render_to_string("zelo/report/file.html", {"report": report})


def as_markdown(report: Report) -> str:
    """Return the report as Markdown with tables; interval bars are left out, their numbers are in the cells."""
    parts = [f"# {_escaped(report.title)}", *_facts(report.facts)]
    for section in report.sections:
        parts.append(f"## {_escaped(section.title)}")
        for block in section.blocks:
            parts += _block(block)
    return "\n\n".join(parts) + "\n"


def as_plain(report: Report) -> dict[str, Any]:
    """Return the report as JSON values; numbers are formatted as on the page."""
    return {
        "title": report.title,
        "facts": dict(report.facts.rows),
        "sections": [
            {"key": section.key, "title": section.title, "blocks": [_plain(block) for block in section.blocks]}
            for section in report.sections
        ],
    }


def _block(block: Block) -> list[str]:
    if isinstance(block, Text):
        return [f"**{_escaped(block.words)}**" if block.is_warning else _escaped(block.words)]
    if isinstance(block, Facts):
        return _facts(block)
    return _table(block)


def _facts(facts: Facts) -> list[str]:
    title = [f"### {_escaped(facts.title)}"] if facts.title else []
    mark = "`" if facts.is_code else ""
    rows = [f"- {_escaped(name)}: {mark}{value if mark else _escaped(value)}{mark}" for name, value in facts.rows]
    return [*title, "\n".join(rows)] if rows else title


def _table(table: Table) -> list[str]:
    head = [table.first, *(column.label for column in table.columns)]
    rule = ["---", *("---:" if column.is_number else "---" for column in table.columns)]
    rows = [[line.name, *map(str, line.cells)] for line in table.lines]
    text = "\n".join(_row([_escaped(cell) for cell in row]) for row in [head])
    text += "\n" + _row(rule) + "".join("\n" + _row([_escaped(cell) for cell in row]) for row in rows)
    title = [f"### {_escaped(table.title)}"] if table.title else []
    return [*title, text, *([_escaped(table.note)] if table.note else [])]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    return _NUMBERED.sub(r"\1\\\2", _SPECIAL.sub(r"\\\1", " ".join(text.split())))


def _plain(block: Block) -> dict[str, Any]:
    if isinstance(block, Text):
        return {"kind": "text", **asdict(block)}
    if isinstance(block, Facts):
        return {"kind": "facts", "title": block.title, "rows": dict(block.rows)}
    return {
        "kind": "table",
        "title": block.title,
        "columns": [block.first, *(column.label for column in block.columns)],
        "rows": [[line.name, *map(str, line.cells)] for line in block.lines],
        "note": block.note,
    }
