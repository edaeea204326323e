"""The permitted addresses of webhooks: the operator's list ZELO_WEBHOOK_HOSTS. Imports no Django.

An entry is a host (`hooks.example.org`), all hosts below a domain (`*.example.org`), an IP address or a network
(`10.2.0.0/16`), each with a port if it is not the scheme's own (`ci.example.org:8443`, `[::1]:9000`). A host may resolve to
public addresses only; private, loopback and link-local ones need an entry of their own.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

VARIABLE = "ZELO_WEBHOOK_HOSTS"
LONGEST_URL = 2000
DEFAULT_PORTS = {"http": 80, "https": 443}

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], list[str]]

_ENTRY = re.compile(r"^(?:\[(?P<six>[^\]]+)\]|(?P<host>[^:\s]+)|(?P<bare>[0-9a-fA-F:./]+))(?::(?P<port>\d{1,5}))?$")
_HOST = re.compile(r"^(\*\.)?(?!-)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?$")


class BadEntry(ValueError):
    """An entry of the list is neither a host, an address nor a network."""


class AddressRefused(ValueError):
    """The list does not permit the address."""


@dataclass(frozen=True, slots=True)
class Target:
    """A permitted address: the parts of its URL, and the IP addresses that it may be sent to."""

    scheme: str
    host: str
    port: int
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry; `network` for addresses, else `host`. `port` None: the scheme's own."""

    host: str
    network: Network | None
    port: int | None

    def permits(self, host: str, port: int, scheme: str) -> bool:
        """Whether a URL may name this host and port."""
        if port != (self.port if self.port is not None else DEFAULT_PORTS[scheme]):
            return False
        if self.network is not None:
            address = _literal(host)
            return address is not None and address in self.network
        return host.endswith(self.host[1:]) if self.host.startswith("*.") else host == self.host


def parse_entries(entries: Sequence[str]) -> list[Entry]:
    """The entries of the list. Raises BadEntry, which names the entry."""
    return [_entry(each) for each in entries]


def _entry(text: str) -> Entry:
    match = _ENTRY.match(text)
    host = next((each for each in match.group("six", "host", "bare") if each), "") if match else ""
    port = int(match["port"]) if match and match["port"] else None
    if not host or (port is not None and not 0 < port < 65536):
        raise BadEntry(f"{text!r} is not a host, address or network, with or without a port")
    try:
        return Entry("", ipaddress.ip_network(host, strict=False), port)
    except ValueError:
        if not _HOST.match(host.lower()) or re.fullmatch(r"[0-9.]+|.*/.*", host):
            raise BadEntry(f"{text!r} is not a host, address or network, with or without a port") from None
    return Entry(host.lower().rstrip("."), None, port)


def check_url(url: str, entries: Sequence[Entry]) -> tuple[str, str, int]:
    """Scheme, host and port of a URL that the list permits, without resolving it. Raises AddressRefused."""
    if len(url) > LONGEST_URL or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressRefused(f"the address is longer than {LONGEST_URL} characters, or has blanks; send a plain URL")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise AddressRefused(f"{url[:100]!r} is not a URL: {error}") from None
    host = (parts.hostname or "").rstrip(".")
    if parts.scheme not in DEFAULT_PORTS or "*" in host or not (_literal(host) or _HOST.match(host)):
        raise AddressRefused(f"{url[:100]!r} is not an http or https URL")
    if parts.username or parts.password or parts.fragment:
        raise AddressRefused("the address has a user, a password or a fragment; leave them out")
    port = port if port is not None else DEFAULT_PORTS[parts.scheme]
    if not any(entry.permits(host, port, parts.scheme) for entry in entries):
        listed = "none is listed" if not entries else "it is not one of the listed ones"
        raise AddressRefused(
            f"the operator permits webhooks to listed hosts only, and {listed}; ask them to add "
            f"{host}{'' if port == DEFAULT_PORTS[parts.scheme] else f':{port}'} to {VARIABLE}"
        )
    return parts.scheme, host, port


def find_target(url: str, entries: Sequence[Entry], *, resolve: Resolve | None = None) -> Target:
    """The target of a message, with addresses that were checked. Raises AddressRefused, OSError if the host is unknown."""
    scheme, host, port = check_url(url, entries)
    found = (resolve or _resolved)(host, port)
    for each in found:
        if not _may_reach(ipaddress.ip_address(each), port, entries):
            raise AddressRefused(
                f"{host} resolves to {each}, which is not a public address; the operator may list it in {VARIABLE}"
            )
    return Target(scheme, host, port, tuple(found))


def _resolved(host: str, port: int) -> list[str]:
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]).partition("%")[0] for row in rows))


def _may_reach(address: Address, port: int, entries: Sequence[Entry]) -> bool:
    inner = _inside(address)
    if inner.is_global and address.is_global and not (inner.is_multicast or inner.is_reserved or _is_local(inner)):
        return True
    listed = (entry for entry in entries if entry.port in (None, port))
    return any(entry.network is not None and inner in entry.network for entry in listed)


def _is_local(address: Address) -> bool:
    """Whether it is one of the old site-local IPv6 addresses (fec0::/10), which Python calls global."""
    return isinstance(address, ipaddress.IPv6Address) and address.is_site_local


def _inside(address: Address) -> Address:
    """The IPv4 address inside an IPv6 one that stands for it (mapped, 6to4, NAT64), or the address."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in ipaddress.ip_network("64:ff9b::/96"):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
