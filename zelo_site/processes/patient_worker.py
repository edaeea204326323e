"""The web server's gunicorn worker: a slow client costs a socket, never a thread. No Django.

The worker's event loop receives a request's head, and its body if that is small, before a thread sees it; it also sends what
a slow reader has not taken yet. Larger bodies are read by the thread that parses them, at a minimum pace. All waiting has
a deadline. `zelo_site.processes.stack` names the class on the command line; gunicorn's `gthread` does the rest.
"""

from __future__ import annotations

import contextlib
import errno
import re
import select
import selectors
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from gunicorn.workers.gthread import STOP_KEEPALIVE_LINGER, TConn, ThreadWorker

# A whole head, and then a small body, arrive within this time.
HEAD_S, SMALL_BODY_S = 10.0, 10.0
MOST_HEAD_BYTES = 64 * 1024
# `zelo_site.security.request_limits` refuses larger bodies of visitors who are not signed in.
SMALL_BODY_BYTES = 64 * 1024
# A large body or response may pause this long, and must move this fast on average after the first seconds.
STALL_S, PACE_GRACE_S, SLOWEST_BYTES_PER_S = 10.0, 20.0, 16 * 1024
# The event loop sends up to this much of a response; a larger one keeps its thread until the rest is smaller.
MOST_UNSENT_BYTES = 256 * 1024
_SLICE_BYTES = 64 * 1024
LINGER_S = 2.0
# Of a body that nobody wants, the event loop drops so much; then the client waits for the end, instead of the loop for it.
MOST_DROPPED_BYTES = 8 * 1024 * 1024
SWEEP_EVERY_S = 0.25
# A new connection closes the connection that has waited longest, instead of waiting itself.
SPARE_CONNECTIONS = 20

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*(\d{1,18})[ \t]*\r\n", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_EXPECT = re.compile(rb"\r\nexpect:[ \t]*100-continue", re.IGNORECASE)


class SlowClient(TimeoutError):
    """The client sent or took nothing for too long, or too little."""

    def __init__(self) -> None:
        super().__init__(errno.ECONNRESET, "the client is too slow")  # gunicorn logs other numbers as failures


class BufferedSocket:
    """A socket with what was received ahead of its request and what the client has not taken yet.

    The socket beneath never blocks. `recv` and `sendall`, which threads call, wait for it at a minimum pace.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._timeout: float | None = None
        self._continued = False
        self.received = bytearray()
        self.unsent = bytearray()
        self.dropped = 0
        self.begin()

    def begin(self) -> None:
        """Start the count of a new request."""
        self._waited_s, self._moved, self._continued = 0.0, 0, False

    # --- for the event loop ---

    def fill(self) -> bool:
        """Receive what has arrived; False once the client has closed."""
        try:
            data = self._sock.recv(64 * 1024)
        except BlockingIOError:
            return True
        except OSError:
            return False
        self.received += data
        return bool(data)

    def flush(self) -> bool:
        """Send what the client takes now; False once it has closed."""
        try:
            sent = self._sock.send(self.unsent) if self.unsent else 0
        except BlockingIOError:
            return True
        except OSError:
            return False
        del self.unsent[:sent]
        return True

    @property
    def has_head(self) -> bool:
        """Return whether the head of the request has arrived."""
        return self._head_end() >= 0

    @property
    def is_ready(self) -> bool:
        """Return whether a thread can serve the request without waiting for a head or a small body."""
        end = self._head_end()
        if end < 0:
            return False
        head = bytes(self.received[: end + 4])
        length = _LENGTH.search(head)
        if _CHUNKED.search(head) or length is None or int(length[1]) > SMALL_BODY_BYTES:
            return True
        if len(self.received) >= end + 4 + int(length[1]):
            return True
        if _EXPECT.search(head) and not self._continued:
            self._continued = True
            with contextlib.suppress(OSError):
                self._sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        return False

    def _head_end(self) -> int:
        return self.received.find(b"\r\n\r\n")

    def give_back(self, data: bytes) -> None:
        """Put bytes that a parser read too far before those received."""
        self.received[:0] = data

    def discard(self) -> bool:
        """Drop what has arrived; False once the client has closed."""
        is_open = self.fill()
        self.dropped += len(self.received)
        self.received.clear()
        return is_open

    # --- for threads: the part of a socket's interface that gunicorn uses ---

    def recv(self, size: int) -> bytes:
        if self.received:
            data = bytes(self.received[:size])
            del self.received[:size]
            return data
        while True:
            self._wait(select.POLLIN)
            with contextlib.suppress(BlockingIOError):
                data = self._sock.recv(size)
                self._moved += len(data)
                return data

    def send(self, data: bytes) -> int:
        self.sendall(data)
        return len(data)

    def sendall(self, data: bytes) -> None:
        for start in range(0, len(data), _SLICE_BYTES):
            self.unsent += data[start : start + _SLICE_BYTES]
            self._send_some()
            while len(self.unsent) > MOST_UNSENT_BYTES:
                self._wait(select.POLLOUT)
                self._send_some()

    def _send_some(self) -> None:
        with contextlib.suppress(BlockingIOError):
            sent = self._sock.send(self.unsent)
            self._moved += sent
            del self.unsent[:sent]

    def _wait(self, event: int) -> None:
        """Wait until the client moves; only this waiting counts against its pace, not the application's work."""
        patience = min(STALL_S, PACE_GRACE_S + self._moved / SLOWEST_BYTES_PER_S - self._waited_s)
        if self._timeout is not None:
            patience = min(patience, self._timeout)
        poll = select.poll()
        poll.register(self._sock, event)
        began = time.monotonic()
        if patience <= 0 or not poll.poll(patience * 1000):
            self.unsent.clear()
            raise SlowClient
        self._waited_s += time.monotonic() - began

    def gettimeout(self) -> float | None:
        return self._timeout

    def settimeout(self, value: float | None) -> None:
        self._timeout = value

    def setblocking(self, flag: bool) -> None:
        """Do nothing: the socket beneath never blocks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)  # fileno, getpeername, getsockname, shutdown, close, family


def announcing_the_end(site: Callable[..., Any]) -> Callable[..., Any]:
    """The site with `Connection: close` where a body beyond the small ones is not read before the response begins.

    Most of it has not arrived, so no other request can follow; a client that is not told sends one that nobody answers.
    """

    def answered(environ: dict[str, Any], start_response: Any) -> Any:
        reader = environ["wsgi.input"].reader

        def start(*arguments: Any) -> Any:
            if getattr(reader, "length", SMALL_BODY_BYTES + 1) > SMALL_BODY_BYTES:  # a chunked body has no length
                start_response.__self__.force_close()
            return start_response(*arguments)

        return site(environ, start)

    return answered


class PatientWorker(ThreadWorker):
    """gthread, with the waiting for clients in the event loop.

    A connection is in `waiting` with its deadline while the loop receives its request, sends the rest of its response or
    waits for its end; in gthread's own list between requests; in a thread while it is served.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.waiting: dict[TConn, float] = {}
        self._next_sweep = 0.0

    def load_wsgi(self) -> None:
        """Load the site; a response to a large body that it does not read says that the connection ends."""
        super().load_wsgi()
        self.wsgi = announcing_the_end(self.wsgi)  # type: ignore[has-type]

    def accept(self, listener: socket.socket) -> None:
        """Accept a connection and wait for its request."""
        try:
            sock, address = listener.accept()
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EWOULDBLOCK, errno.ECONNABORTED):
                return
            if error.errno in (errno.EMFILE, errno.ENFILE) and self._drop_longest_waiting():
                return
            raise
        self.nr_conns += 1
        if self.nr_conns > self.worker_connections - SPARE_CONNECTIONS:
            self._drop_longest_waiting()
        conn = TConn(self.cfg, BufferedSocket(sock), address, listener.getsockname())
        conn.data_ready = True
        self._await_request(conn)

    def on_client_socket_readable(self, conn: TConn, client: Any) -> None:
        """Wait for the next request of a kept-alive connection, which has begun to arrive."""
        self.poller.unregister(client)
        self.keepalived_conns.remove(conn)
        self._await_request(conn)

    def finish_request(self, conn: TConn, fs: Any) -> None:
        """Send the rest of the response, then keep or close the connection."""
        keep = not fs.cancelled() and fs.exception() is None and fs.result() is True
        if conn.sock.fileno() < 0:  # gunicorn closed it after an error in a streamed response
            self._close(conn)
        elif conn.sock.unsent:
            patience = PACE_GRACE_S + len(conn.sock.unsent) / SLOWEST_BYTES_PER_S
            self._wait(conn, selectors.EVENT_WRITE, partial(self._on_writable, conn, keep), patience)
        else:
            self._after_response(conn, keep)

    def murder_pending(self) -> None:
        """Close the connections whose deadline is past; once stopping, those whose request has not arrived."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_EVERY_S
        for conn in [conn for conn, deadline in self.waiting.items() if deadline < now or self._is_idle(conn)]:
            self._drop(conn)

    def _is_idle(self, conn: TConn) -> bool:
        return not self.alive and not conn.sock.unsent and not conn.sock.received

    def _keepalive_after(self, conn: TConn, keepalive: Any) -> bool:
        """Return whether another request can follow; an unread body that has not arrived ends the connection."""
        return bool(keepalive) and bool(conn.parser.finish_body(deadline=time.monotonic() + 0.05))

    # --- states ---

    def _await_request(self, conn: TConn) -> None:
        conn.sock.begin()
        if conn.sock.is_ready:
            self.enqueue_req(conn)
        else:
            self._wait(conn, selectors.EVENT_READ, partial(self._on_readable, conn), HEAD_S)

    def _on_readable(self, conn: TConn, client: Any) -> None:
        had_head = conn.sock.has_head
        if not conn.sock.fill():
            self._drop(conn)
        elif conn.sock.is_ready:
            self._stop_waiting(conn)
            conn.sock.begin()
            self.enqueue_req(conn)
        elif conn.sock.has_head and not had_head:
            self.waiting[conn] = time.monotonic() + SMALL_BODY_S
        elif not conn.sock.has_head and len(conn.sock.received) > MOST_HEAD_BYTES:
            self._refuse(conn, "431 Request Header Fields Too Large")

    def _on_writable(self, conn: TConn, keep: bool, client: Any) -> None:
        if not conn.sock.flush():
            self._drop(conn)
        elif not conn.sock.unsent:
            self._stop_waiting(conn)
            self._after_response(conn, keep)

    def _on_lingering(self, conn: TConn, client: Any) -> None:
        if not conn.sock.discard():
            self._drop(conn)
        elif conn.sock.dropped > MOST_DROPPED_BYTES:
            self.poller.unregister(conn.sock)  # its deadline closes it

    def _after_response(self, conn: TConn, keep: bool) -> None:
        if not keep:
            self._linger(conn)
            return
        conn.sock.give_back(conn.parser.unreader.take_buffered())
        if conn.sock.received:
            self._await_request(conn)
            return
        conn.set_timeout()
        if not self.alive:
            conn.timeout = min(conn.timeout, time.monotonic() + STOP_KEEPALIVE_LINGER)
        self.keepalived_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self.on_client_socket_readable, conn))

    def _linger(self, conn: TConn) -> None:
        """Close after the client has: an earlier close could lose the response (RFC 9112, section 9.6)."""
        try:
            conn.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(conn)
        else:
            self._wait(conn, selectors.EVENT_READ, partial(self._on_lingering, conn), LINGER_S)

    def _refuse(self, conn: TConn, status: str) -> None:
        self._stop_waiting(conn)
        with contextlib.suppress(OSError):
            conn.sock.sendall(f"HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".encode())
        self._linger(conn)

    def _wait(self, conn: TConn, events: int, callback: Any, patience_s: float) -> None:
        self.waiting[conn] = time.monotonic() + patience_s
        self.poller.register(conn.sock, events, callback)

    def _stop_waiting(self, conn: TConn) -> None:
        self.waiting.pop(conn, None)
        with contextlib.suppress(OSError, KeyError, ValueError):
            self.poller.unregister(conn.sock)

    def _drop(self, conn: TConn) -> None:
        self._stop_waiting(conn)
        self._close(conn)

    def _close(self, conn: TConn) -> None:
        self.nr_conns -= 1
        conn.close()

    def _drop_longest_waiting(self) -> bool:
        """Close the connection that has waited longest, of those between two requests where they are more than the others."""
        if len(self.keepalived_conns) > len(self.waiting):
            idle = self.keepalived_conns.popleft()
            self.poller.unregister(idle.sock)
            self._close(idle)
            return True
        if not self.waiting:
            return False
        self._drop(min(self.waiting, key=lambda conn: self.waiting[conn]))
        return True
