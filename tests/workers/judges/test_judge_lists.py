"""The ready-made lists of judges in the documentation can be used as they stand."""

from __future__ import annotations

import json
import re
from pathlib import Path

from labeling.plugins import get_plugin

DOCS = Path(__file__).parents[3] / "docs" / "judges.md"


def test_every_list_of_judges_in_the_documentation_is_valid() -> None:
    lists = [json.loads(text) for text in re.findall(r"```json\n(\[.*?\])\n```", DOCS.read_text("utf-8"), re.DOTALL)]
    assert [len(judges) for judges in lists][:2] == [3, 3]
    for judge in (judge for judges in lists for judge in judges):
        assert {"plugin", "options"} <= set(judge) <= {"plugin", "options", "name"}
        get_plugin("judge", judge["plugin"]).from_dict(judge["options"])
