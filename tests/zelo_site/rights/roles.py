"""Groups of roles that an address can be for."""

from __future__ import annotations

from tests.factories.world.site import ROLES, Roles


class For:
    """Whom an address is for; the others are refused, and who is no member finds nothing."""

    ALL = ROLES
    SIGNED_IN = ("owner", "annotator", "viewer", "stranger")
    STARTERS = ("owner",)  # staff, and owners of any project
    STAFF: Roles = ()
    MEMBERS = ("owner", "annotator", "viewer")
    PEOPLE_WHO_COMPARE = ("owner", "annotator")
    READERS = ("owner", "viewer")
    OWNERS = ("owner",)
    NOBODY_ELSE: Roles = ()  # the walk's key belongs to nobody in it
    KEYS: Roles = ()  # programs with a key of their own; a browser's session opens nothing
