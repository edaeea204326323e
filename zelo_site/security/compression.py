"""Sends pages and static text files compressed, which takes fewer bytes on a phone's network.

Compressed pages could give a secret away by their size if a stranger can add text to them (BREACH). Django masks the
CSRF token anew in each response and adds random bytes to what it compresses. JSON and files stay as they are: programs
on the same network gain nothing, and archives are compressed already.
"""

from __future__ import annotations

import gzip

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.gzip import GZipMiddleware, re_accepts_gzip
from django.utils.cache import patch_vary_headers

PAGES = "text/html"
STATIC = ("text/css", "text/javascript", "application/javascript", "image/svg+xml")


class CompressionMiddleware(GZipMiddleware):
    """Compresses HTML, and static text files once a process."""

    _files: dict[tuple[str, str], bytes] = {}  # by path and time of change, so as many as there are files

    def process_response(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        kind = response.headers.get("Content-Type", "").partition(";")[0]
        if kind in STATIC and response.status_code == 200 and request.path.startswith(settings.STATIC_URL):
            return self._static(request, response)
        if kind != PAGES or response.streaming:
            return response
        compressed: HttpResponseBase = super().process_response(request, response)
        return compressed

    def _static(self, request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
        patch_vary_headers(response, ("Accept-Encoding",))
        accepts = re_accepts_gzip.search(request.headers.get("Accept-Encoding", ""))
        if request.method != "GET" or not accepts or response.has_header("Content-Encoding"):
            return response
        key = (request.path, response.headers.get("Last-Modified", ""))
        if key not in self._files:
            plain = b"".join(response)  # a file, in blocks
            self._files[key] = gzip.compress(plain, mtime=0)
        response.close()
        sent = HttpResponse(self._files[key], status=response.status_code, headers=dict(response.headers))
        sent.headers.pop("ETag", None)  # that of the plain file; the time of change answers whether it is new
        sent.headers["Content-Encoding"] = "gzip"
        sent.headers["Content-Length"] = str(len(self._files[key]))
        return sent
