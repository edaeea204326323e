"""The addresses that a server may listen on: others than loopback need a proxy in front, or an explicit option. No Django.

The commands `up`, `demo` and `serve_rerank` share the arguments and the check.
"""

from __future__ import annotations

import ipaddress
import os
from argparse import ArgumentParser
from collections.abc import Mapping

BEHIND_PROXY, WITHOUT_PROXY = "behind_proxy", "without_proxy"


class Exposed(ValueError):
    """The address can be reached from other hosts, and nothing says that this is meant."""


def add_listening_arguments(parser: ArgumentParser) -> None:
    """Add the two arguments that allow an address other than loopback."""
    words = parser.add_mutually_exclusive_group()
    words.add_argument(
        "--behind-proxy",
        action="store_true",
        help="the proxies in ZELO_TRUSTED_PROXIES encrypt; needed for a --host that is not loopback",
    )
    words.add_argument(
        "--without-proxy", action="store_true", help="listen without encryption: others can read passwords and keys"
    )


def check_listening(host: str, options: Mapping[str, object], environ: Mapping[str, str] = os.environ) -> None:
    """Raise Exposed unless `host` is loopback, or the options say what protects it."""
    if is_loopback(host) or options.get(WITHOUT_PROXY):
        return
    if not options.get(BEHIND_PROXY):
        raise Exposed(
            f"--host {host} can be reached from other hosts without encryption; put a proxy with TLS in front and add "
            "--behind-proxy (docs/deployment.md), or add --without-proxy to accept that passwords and keys can be read"
        )
    if not environ.get("ZELO_TRUSTED_PROXIES"):
        raise Exposed(
            "--behind-proxy needs the proxies' addresses; set ZELO_TRUSTED_PROXIES, e.g. to 10.0.0.5 or 10.0.0.0/24"
        )


def is_loopback(host: str) -> bool:
    """Return whether only this host can reach the address; names other than localhost count as reachable."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
