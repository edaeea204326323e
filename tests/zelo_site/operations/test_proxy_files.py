"""The configurations of nginx and Caddy, run on loopback: they encrypt, and the server sees what the proxy saw, not what a client claims."""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.processes.installation import free_port

DEPLOYMENT = Path(__file__).resolve().parents[3] / "docs" / "deployment"
CLAIMS = {
    "X-Forwarded-For": "1.2.3.4",
    "X-Forwarded-Proto": "http",
    "Forwarded": "for=1.2.3.4",
    "X-Forwarded-Host": "evil.example",
}


class _Echo(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({name.lower(): value for name, value in self.headers.items()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[int]:
    """The port of a site that answers with the headers that it got."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Echo) as site:
        threading.Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_port
        site.shutdown()


def command_of(tool: str, folder: Path, *, port: int, server: int) -> list[str]:
    """Write the configuration with our ports and certificate; return the command that runs the proxy with it."""
    cert, key = folder / "fullchain.pem", folder / "privkey.pem"
    if tool == "nginx":
        site = (DEPLOYMENT / "nginx.conf").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{server}")
        for old, new in (("[::]:80", ""), ("[::]:443 ssl http2", ""), ("80", str(free_port())), ("443", str(port))):
            site = site.replace(f"listen {old}", f"listen 127.0.0.1:{new}" if new else "# listen")
        site = site.replace("/etc/ssl/zelo", str(folder))
        paths = "".join(
            f"{name}_temp_path {folder}/{name};" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        whole = (
            f"pid {folder}/pid; daemon off; error_log stderr; events {{}} http {{ access_log off; {paths}\n{site}\n}}"
        )
        (folder / "nginx.conf").write_text(whole)
        return ["nginx", "-p", str(folder), "-e", "stderr", "-c", str(folder / "nginx.conf")]
    site = (DEPLOYMENT / "Caddyfile").read_text().replace("127.0.0.1:8000", f"127.0.0.1:{server}")
    site = site.replace("zelo.example {", f"https://zelo.example:{port} {{\n\ttls {cert} {key}")
    site = site.replace("{\n\tservers", "{\n\tadmin off\n\tauto_https disable_redirects\n\tservers", 1)
    (folder / "Caddyfile").write_text(site)
    return ["caddy", "run", "--adapter", "caddyfile", "--config", str(folder / "Caddyfile")]


@pytest.mark.parametrize("tool", ["nginx", "caddy"])
def test_the_server_sees_what_the_proxy_saw(tool: str, server: int, tmp_path: Path) -> None:
    if shutil.which(tool) is None or shutil.which("openssl") is None:
        pytest.skip(f"{tool} and openssl are not both installed; `apt-get install {tool} openssl` brings them")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=zelo.example"]
    make += ["-addext", "subjectAltName=DNS:zelo.example", "-keyout", "privkey.pem", "-out", "fullchain.pem"]
    subprocess.run(make, cwd=tmp_path, check=True, capture_output=True)
    port = free_port()
    environment = {"PATH": "/usr/sbin:/usr/bin:/bin", "HOME": str(tmp_path)}
    proxy = subprocess.Popen(command_of(tool, tmp_path, port=port, server=server), env=environment)
    try:
        seen = _asked(port, tmp_path / "fullchain.pem")
    finally:
        proxy.terminate()
        proxy.wait(60)
    assert (seen["x-forwarded-for"], seen["x-forwarded-proto"]) == ("127.0.0.1", "https")
    assert seen["host"].startswith("zelo.example") and "forwarded" not in seen
    assert not seen.get("x-forwarded-host", "").startswith("evil")


def _asked(port: int, certificate: Path) -> dict[str, str]:
    """The headers that the site got of a request with false claims; the proxy may still be starting."""
    context, deadline = ssl.create_default_context(cafile=str(certificate)), time.monotonic() + 60
    while True:
        try:
            plain = socket.create_connection(("127.0.0.1", port), timeout=10)
            break
        except OSError:
            assert time.monotonic() < deadline, "the proxy does not listen"
            time.sleep(0.1)
    with contextlib.closing(context.wrap_socket(plain, server_hostname="zelo.example")) as encrypted:
        connection = http.client.HTTPConnection("zelo.example", port)
        connection.sock = encrypted
        connection.request("GET", "/", headers=CLAIMS)
        found: dict[str, str] = json.loads(connection.getresponse().read())
        return found
