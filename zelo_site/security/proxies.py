"""The client's address and scheme behind proxies: headers count only from the addresses in ZELO_TRUSTED_PROXIES."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from django.conf import settings
from django.http import HttpRequest, HttpResponse

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
FORWARDED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST", "HTTP_FORWARDED")


class ProxyHeadersMiddleware:
    """Sets REMOTE_ADDR to the client's address, and removes the headers that an untrusted client wrote itself."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response
        self.trusted = [ipaddress.ip_network(each) for each in settings.ZELO_TRUSTED_PROXIES]

    def __call__(self, request: HttpRequest) -> HttpResponse:
        sender = request.META.get("REMOTE_ADDR", "")
        if is_in(sender, self.trusted):
            request.META["REMOTE_ADDR"] = client_of(request.META.get("HTTP_X_FORWARDED_FOR", ""), sender, self.trusted)
        else:
            for header in FORWARDED:
                request.META.pop(header, None)
        return self.get_response(request)


def address_of(request: HttpRequest) -> str | None:
    """Return the client's address, which the middleware has found."""
    return request.META.get("REMOTE_ADDR") or None


def client_of(forwarded: str, sender: str, trusted: Sequence[Network]) -> str:
    """Return the last address in X-Forwarded-For that no trusted proxy has; earlier ones are the client's own claims."""
    for address in reversed([each.strip() for each in forwarded.split(",") if each.strip()]):
        if not _is_address(address):
            return sender
        sender = address
        if not is_in(address, trusted):
            break
    return sender


def is_in(address: str, networks: Sequence[Network]) -> bool:
    """Return whether `address` is in one of the networks; False for what is no address."""
    return _is_address(address) and any(ipaddress.ip_address(address) in network for network in networks)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
