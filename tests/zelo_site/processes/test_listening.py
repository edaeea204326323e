"""Listening on an address that others reach needs a proxy in front, or an explicit word."""

from __future__ import annotations

import pytest
from django.core.management import CommandError, call_command

from zelo_site.processes.listening import Exposed, check_listening

PROXIES = {"ZELO_TRUSTED_PROXIES": "10.0.0.5"}


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"])
def test_loopback_needs_nothing(host: str) -> None:
    check_listening(host, {}, {})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "zelo.example", ""])
def test_other_addresses_need_a_word(host: str) -> None:
    with pytest.raises(Exposed, match="--behind-proxy"):
        check_listening(host, {}, PROXIES)
    with pytest.raises(Exposed, match="ZELO_TRUSTED_PROXIES"):
        check_listening(host, {"behind_proxy": True}, {})
    check_listening(host, {"behind_proxy": True}, PROXIES)
    check_listening(host, {"without_proxy": True}, {})


@pytest.mark.parametrize("command", ["up", "demo", "serve_rerank"])
def test_commands_refuse(command: str) -> None:
    with pytest.raises(CommandError, match="--without-proxy"):
        call_command(command, host="0.0.0.0")
