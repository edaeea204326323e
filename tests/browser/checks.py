"""What every browser test checks: the page opened, and axe found no serious fault."""

from __future__ import annotations

from collections.abc import Callable

from axe_playwright_python.sync_playwright import Axe

from tests.browser.conftest import Visit

Start = Callable[..., Visit]


SERIOUS = {"serious", "critical"}


def serious_faults(visited: Visit) -> list[str]:
    """What axe finds serious or critical, as one line each."""
    found = Axe().run(visited.page).response["violations"]
    return [
        f"{each['id']}: {each['help']} at {each['nodes'][0]['target']} {each['nodes'][0]['html'][:120]}"
        for each in found
        if each["impact"] in SERIOUS
    ]
