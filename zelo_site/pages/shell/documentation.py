"""The documentation at /docs/, from the Markdown files of the repository, which an installed package brings along."""

from __future__ import annotations

import functools
from pathlib import Path

from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import reverse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.http import require_safe

import zelo_site
from zelo_site.pages.shell.markdown import Document, render_markdown

FOLDER = Path(zelo_site.__file__).parent / "docs"
IMAGES = {".png": "image/png", ".svg": "image/svg+xml"}
# Chapters in reading order; a file that no chapter names stands in the last one.
CHAPTERS = (
    (_("First steps"), ("tour", "sample", "imports", "exports")),
    (_("Judging"), ("judges", "designs", "budgets", "queue", "scoring")),
    (_("People"), ("people",)),
    (_("Model"), ("training", "recipe", "evaluation", "serving")),
    (_("Programs"), ("api", "client", "webhooks", "plugins")),
    (_("Server"), ("deployment", "operations", "scale", "deletion", "performance", "architecture", "pictures")),
)


@require_safe
def docs_page(request: HttpRequest) -> HttpResponse:
    """List the documents by chapter."""
    titles = document_titles()
    listed = [[(name, titles.pop(name)) for name in names if name in titles] for __, names in CHAPTERS]
    listed[-1] += sorted(titles.items())
    chapters = [(label, rows) for (label, __), rows in zip(CHAPTERS, listed, strict=True)]
    return render(request, "zelo/docs/docs.html", {"chapters": chapters, "here": "docs"})


@require_safe
def doc_page(request: HttpRequest, doc: str) -> HttpResponse:
    """Show one document."""
    found = document(doc)
    if found is None:
        raise Http404
    return render(request, "zelo/docs/doc.html", {"document": found, "here": "docs"})


@require_safe
def doc_image(request: HttpRequest, image: str) -> FileResponse:
    """Return a picture of the documentation."""
    path = FOLDER / "images" / Path(image).name
    if path.name != image or path.suffix not in IMAGES or not path.is_file():
        raise Http404
    return FileResponse(path.open("rb"), content_type=IMAGES[path.suffix])


@functools.cache
def document(name: str) -> Document | None:
    """The rendered document of that name, None without one; files do not change while the server runs."""
    path = FOLDER / f"{name}.md"
    if name not in _names():
        return None
    return render_markdown(path.read_text(encoding="utf-8"), link=_link, image=_image)


@functools.cache
def _names() -> frozenset[str]:
    return frozenset(path.stem for path in FOLDER.glob("*.md"))


def document_titles() -> dict[str, str]:
    """Names and titles of all documents."""
    return {name: found.title for name in sorted(_names()) if (found := document(name))}


def _link(address: str) -> str:
    path, __, anchor = address.partition("#")
    name = path.removesuffix(".md")
    if name in _names():
        return reverse("doc", args=[name]) + (f"#{anchor}" if anchor else "")
    return address


def _image(address: str) -> str:
    name = address.removeprefix("images/")
    return reverse("doc-image", args=[name]) if name != address and "/" not in name else address
