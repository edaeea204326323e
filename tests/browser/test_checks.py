"""The checks of the browser tests find what they are for: one pale text among many like it, in each look."""

from __future__ import annotations

import pytest

from tests.browser.checks import Start, faults_in_looks

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

ROWS = "".join(f"<tr><td>{number}</td></tr>" for number in range(20))
PAGE = """<html lang="en"><title>t</title><style>
  @media (prefers-color-scheme: dark) {{ body {{ background: #222; color: #eee }} }} {style}
</style><main><h1>t</h1><table>{rows}</table><p id="narrow">phones alone</p>{more}</main>"""


@pytest.mark.parametrize(
    ("style", "more", "found"),
    [
        ("", "", set()),
        ("tr:nth-child(17) td { color: #ccc; background: #fff }", "", {"light", "dark", "phone"}),
        ("@media (prefers-color-scheme: dark) { tr:nth-child(17) td { color: #444 } }", "", {"dark"}),
        ("@media (max-width: 600px) { #narrow { color: #ddd } }", "", {"phone"}),
        ("", "<img src='data:,'>", {"light", "phone"}),  # what is no matter of colours is looked for once in each size
    ],
)
def test_a_fault_is_found_in_its_looks(style: str, more: str, found: set[str], visit: Start) -> None:
    visited = visit()
    visited.page.set_content(PAGE.format(style=style, rows=ROWS, more=more))
    assert set(faults_in_looks(visited, "page")) == {f"page, {look}" for look in found}
