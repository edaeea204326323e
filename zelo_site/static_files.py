"""Serves one static file from another package's wheel: Plotly's script.

Rejected: STATICFILES_DIRS would serve the whole folder of that package, including its example data.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from django.contrib.staticfiles.finders import BaseFinder
from django.core.files.storage import FileSystemStorage

PLOTLY = "plotly/plotly.min.js"


def plotly_folder() -> Path | None:
    """Return the folder of the wheel's script, or None if Plotly is not installed. Does not import plotly."""
    spec = importlib.util.find_spec("plotly")
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent / "package_data"


class PlotlyFinder(BaseFinder):
    """Finds `plotly/plotly.min.js`; listed in STATICFILES_FINDERS."""

    def check(self, **kwargs: Any) -> list[Any]:
        return []

    def find(self, path: str, find_all: bool = False, **kwargs: Any) -> Any:
        folder = plotly_folder()
        if path != PLOTLY or folder is None:
            return []
        found = str(folder / "plotly.min.js")
        return [found] if find_all or kwargs.get("all") else found

    def list(self, ignore_patterns: Iterable[str] | None) -> Iterator[tuple[str, FileSystemStorage]]:
        folder = plotly_folder()
        if folder is not None:
            storage = FileSystemStorage(location=folder)
            storage.prefix = "plotly"  # type: ignore[attr-defined]  # read by collectstatic and whitenoise
            yield "plotly.min.js", storage
