"""Each page's action has its REST operation, or the reason why it has none. A new page's action fails here until it stands in the table."""

from __future__ import annotations

from tests.factories.world.site import EVERY_OPERATION
from tests.zelo_site.page_actions import OVER_REST, WITHOUT, changing_pages


def test_every_action_of_a_page_has_its_operation_or_a_reason() -> None:
    assert set(OVER_REST) | set(WITHOUT) == changing_pages()
    assert not set(OVER_REST) & set(WITHOUT)
    assert {each for operations in OVER_REST.values() for each in operations} <= set(EVERY_OPERATION)
    assert all(WITHOUT.values())
