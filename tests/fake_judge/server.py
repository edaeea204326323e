"""The HTTP side of the fake judge: one asyncio protocol that owns every byte it sends.

Written on bare asyncio rather than on a web framework, because faults like a trickled or a cut body need
the socket, and because one core has to hold more than 500 calls in flight.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import parse_qsl

from tests.fake_judge import dialects
from tests.fake_judge.answers import completion, mode_of, prompt_text
from tests.fake_judge.batches import Batches
from tests.fake_judge.faults import FAULTS, UNPAID, Delivery, FaultPlan, Reply, checked_rates
from tests.fake_judge.ledger import Ledger
from tests.fake_judge.quality import HiddenQuality, JudgeSettings, Question, SetQuestion, gauss, quality_key

TRICKLE_PAUSE_S = 0.05
AZURE = re.compile(r"/openai/deployments/[\w.-]+/chat/completions")
USUAL_HEADERS = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "content-type"}
USUAL_HEADERS |= {"authorization", "api-key"}
MOST_BODY_BYTES = 64 * 1024 * 1024


def _json(document: Any, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


class FakeJudgeServer:
    """Routes, judges and keeps the ledger; knows nothing of sockets."""

    def __init__(
        self,
        *,
        quality: HiddenQuality,
        faults: FaultPlan,
        ledger: Ledger,
        judge: JudgeSettings,
        latency_s: float = 0.0,
        latency_jitter: float = 0.0,
        api_key: str = "",
    ) -> None:
        self.quality = quality
        self.faults = faults
        self.ledger = ledger
        self.default_judge = judge
        self.judges: dict[str, JudgeSettings] = {}
        self.latency_s = latency_s
        self.latency_jitter = latency_jitter
        self.api_key = api_key
        self.sent: dict[str, str] = {}
        self.batches = Batches(self._answer_in_batch)
        self.raw: deque[Reply] = deque()
        self.in_flight = 0
        self.most_in_flight = 0

    def handle(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Reply:
        """One request in, one reply out; never raises."""
        try:
            address, _, query = path.partition("?")
            if self._authorized(path, headers) and address.startswith(("/v1/files", "/v1/batches")):
                reply = self.batches.route(method, address.rstrip("/"), dict(parse_qsl(query)), headers, body)
                if reply is not None:
                    return reply
            route = self._route(method, address.rstrip("/"))
            if route == self._complete and self.raw:
                return self.raw.popleft()
            if route is None:
                return _json({"error": {"message": f"no route {method} {path}", "code": "not_found"}}, 404)
            if not path.startswith("/_fake") and not self._authorized(path, headers):
                return self.faults.strike("unauthorized", {})
            self.sent = {"path": path, **{name: value for name, value in headers.items() if name not in USUAL_HEADERS}}
            return route(json.loads(body) if body else {})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            message = f"{type(error).__name__}: {error}"
            return _json({"error": {"message": message, "type": "invalid_request_error", "code": None}}, 400)

    def _route(self, method: str, path: str) -> Callable[[dict[str, Any]], Reply] | None:
        if method == "POST" and AZURE.fullmatch(path):
            return self._complete
        return {
            ("POST", "/v1/chat/completions"): self._complete,
            ("GET", "/v1/models"): self._models,
            ("GET", "/_fake/ledger"): self._summary,
            ("GET", "/_fake/batches"): lambda _: _json(self.batches.summary()),
            ("POST", "/_fake/batches"): lambda request: _json(self.batches.order(request)),
            ("POST", "/_fake/faults"): self._set_faults,
            ("POST", "/_fake/judges"): self._set_judges,
            ("POST", "/_fake/raw"): self._set_raw,
            ("POST", "/_fake/settings"): self._set,
        }.get((method, path))

    def _set_raw(self, request: dict[str, Any]) -> Reply:
        """{"replies": [{"status", "body"}]}: what the next calls get as it is, whatever their key; an empty list forgets all."""
        if not request["replies"]:
            self.raw.clear()
        self.raw.extend(Reply(int(each["status"]), str(each["body"]).encode()) for each in request["replies"])
        return _json({})

    def _authorized(self, path: str, headers: Mapping[str, str]) -> bool:
        """By a bearer token; at an address like Azure's by the header `api-key`, and only with an `api-version`."""
        if AZURE.fullmatch(path.partition("?")[0]):
            return "api-version=" in path and headers.get("api-key") == self.api_key
        return not self.api_key or headers.get("authorization") == f"Bearer {self.api_key}"

    # --- the API that clients speak ------------------------------------------------------

    def _complete(self, request: dict[str, Any]) -> Reply:
        return self._answer(request, batch="")

    def _answer_in_batch(self, request: dict[str, Any], batch: str) -> tuple[int, dict[str, Any]]:
        """(status, body) of one request of a batch; never raises."""
        try:
            reply = self._answer(request, batch=batch)
            return reply.status, json.loads(reply.body)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            return 400, {"error": {"message": f"{type(error).__name__}: {error}", "code": None}}

    def _answer(self, request: dict[str, Any], *, batch: str) -> Reply:
        model = str(request["model"])
        if request.get("stream"):
            raise ValueError("this server does not stream; send stream=false")
        settings = self.judges.get(model, self.default_judge)
        rejected = dialects.rejection(settings.dialect, request)
        if rejected is not None:
            name, reply = rejected
            self._note(request, fault=name, status=reply.status, paid=False)
            return reply
        written, request = request, dialects.understood(settings.dialect, request)
        question = Question.read(prompt_text(request))
        key = self._keys(question)
        asked_set = SetQuestion.read(prompt_text(request))
        if asked_set is not None:
            question, key = None, self._keys_of_set(asked_set)
        preference = self.quality.preference_of_first(question, model, settings) if question else None
        shares = self.quality.shares_of_labels(asked_set, model, settings) if asked_set else None
        fault, asked = self.faults.meet(f"{model} {key['first']} {key['second']}", settings.fault_rates)
        answer = completion(
            request,
            preference=preference,
            label_mass=settings.label_mass,
            seed=f"{self.quality.seed} {model} {key['first']} {key['second']} {asked}",
            call=self.ledger.calls + 1,
            shares=dict(zip(asked_set.labels, shares, strict=True)) if asked_set and shares else None,
        )
        reply = self.faults.strike(fault, answer) if fault else dialects.delivered(settings.dialect, answer)
        paid = fault not in UNPAID
        usage = answer["usage"] if paid else {"prompt_tokens": 0, "completion_tokens": 0}
        reply.delay_s = 0.0 if batch else self._latency(f"{model} {key['first']} {key['second']} {asked}")
        self._note(
            written,
            **key,
            asked=asked,
            fault=fault,
            status=reply.status,
            paid=paid,
            input_tokens=usage["prompt_tokens"],
            output_tokens=usage["completion_tokens"],
            preference=preference,
            delay_s=round(reply.delay_s, 4),
            batch=batch,
        )
        return reply

    def _note(self, request: dict[str, Any], **line: Any) -> None:
        """Write a call into the ledger, with the parameters and headers that were sent."""
        parameters = {name: value for name, value in request.items() if name != "messages"}
        common = {"time": time.time(), "model": str(request["model"]), "mode": mode_of(request)}
        self.ledger.append(**common, **line, parameters=parameters, sent=self.sent)

    def _keys(self, question: Question | None) -> dict[str, str]:
        """Twelve digits for each presented document (payload and all), in their order."""
        if question is None:
            return {"first": "", "second": ""}
        return {
            "first": quality_key(question.first, question.query_first)[:12],
            "second": quality_key(question.second, question.query_second)[:12],
        }

    def _keys_of_set(self, question: SetQuestion) -> dict[str, str]:
        """The first document, and a digest of the others."""
        first, *others = (quality_key(document, question.query)[:12] for document in question.documents)
        return {"first": first, "second": " ".join(others)}

    def _latency(self, name: str) -> float:
        """Seconds; log-normal around the median where there is jitter."""
        if not self.latency_jitter:
            return self.latency_s
        return self.latency_s * math.exp(self.latency_jitter * gauss(f"latency {name}"))

    def _models(self, _: dict[str, Any]) -> Reply:
        names = sorted(self.judges) or ["fake"]
        rows = [{"id": name, "object": "model", "created": 1_700_000_000, "owned_by": "fake"} for name in names]
        return _json({"object": "list", "data": rows})

    # --- the endpoints of the tests ------------------------------------------------------

    def _summary(self, _: dict[str, Any]) -> Reply:
        flights = {"in_flight": self.in_flight, "most_in_flight": self.most_in_flight}
        return _json({**self.ledger.summary(), **flights})

    def _set_faults(self, request: dict[str, Any]) -> Reply:
        """{"rates": {fault: share}} replaces the rates; {"next": [faults]} strikes the next calls."""
        if "rates" in request:
            self.faults.rates = checked_rates(request["rates"])
        if "retry_after_s" in request:
            self.faults.retry_after_s = float(request["retry_after_s"])
        ordered = request.get("next", [])
        if unknown := sorted(set(ordered) - set(FAULTS) - {""}):
            raise ValueError(f"unknown faults {unknown}; known: {sorted(FAULTS)}")
        self.faults.ordered.extend(ordered)
        return _json({"rates": self.faults.rates, "next": list(self.faults.ordered)})

    def set_judges(self, judges: Mapping[str, Mapping[str, Any]]) -> None:
        """{model: changed settings}; what is not named keeps the server's default."""
        changed = {}
        for model, values in judges.items():
            checked_rates(values.get("fault_rates", {}))
            dialect = dialects.checked(values.get("dialect", []))
            changed[model] = self.default_judge.changed({**values, "dialect": dialect})
        self.judges |= changed

    def _set_judges(self, request: dict[str, Any]) -> Reply:
        self.set_judges(request)
        return _json({model: asdict(settings) for model, settings in self.judges.items()})

    def _set(self, request: dict[str, Any]) -> Reply:
        """{"latency_s", "latency_jitter", "quality": {key: number}, "payloads": [texts]}, each optional."""
        self.latency_s = float(request.get("latency_s", self.latency_s))
        self.latency_jitter = float(request.get("latency_jitter", self.latency_jitter))
        self.quality.known |= request.get("quality", {})
        self.quality.payloads += tuple(" ".join(payload.split()) for payload in request.get("payloads", []))
        return _json({"known": len(self.quality.known), "payloads": len(self.quality.payloads)})


class HttpProtocol(asyncio.Protocol):
    """HTTP/1.1 over one connection, one request at a time, kept alive."""

    def __init__(self, server: FakeJudgeServer) -> None:
        self.server = server
        self.buffer = bytearray()
        self.transport: asyncio.Transport | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        if self.timer is not None:
            self.timer.cancel()
        self._done()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        if not self.busy:
            self._next_request()

    def _next_request(self) -> None:
        """Take a whole request off the buffer, if there is one."""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0 or self.transport is None:
            return
        first, *lines = bytes(self.buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        size = int(headers.get("content-length", "0"))
        if size > MOST_BODY_BYTES or "transfer-encoding" in headers:
            self.transport.close()
            return
        if len(self.buffer) < end + 4 + size:
            return
        body = bytes(self.buffer[end + 4 : end + 4 + size])
        del self.buffer[: end + 4 + size]
        method, path, _ = first.split(" ", 2)
        self.busy = True
        self.server.in_flight += 1
        self.server.most_in_flight = max(self.server.most_in_flight, self.server.in_flight)
        reply = self.server.handle(method, path, headers, body)
        self._after(reply.delay_s, self._send, reply)

    def _after(self, delay_s: float, call: Callable[..., None], *values: Any) -> None:
        if delay_s > 0:
            self.timer = asyncio.get_running_loop().call_later(delay_s, call, *values)
        else:
            call(*values)

    def _send(self, reply: Reply) -> None:
        if self.transport is None:
            return
        if reply.delivery is Delivery.HANG:
            return  # until the client gives up
        if reply.delivery is Delivery.DISCONNECT:
            self.transport.close()
            return
        headers = {"content-type": "application/json", **reply.headers, "content-length": str(len(reply.body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        message = f"HTTP/1.1 {reply.status} Fake\r\n{head}\r\n".encode() + reply.body
        if reply.delivery is Delivery.TRICKLE:
            self._trickle(message, 0)
        elif reply.delivery is Delivery.CUT:
            self.transport.write(message[: -len(reply.body) // 2])
            self.transport.close()
        else:
            self.transport.write(message)
            self._done()
            self._next_request()

    def _trickle(self, message: bytes, sent: int) -> None:
        """A byte at a time: no pause is long, yet the whole takes minutes."""
        if self.transport is None:
            return
        self.transport.write(message[sent : sent + 1])
        if sent + 1 < len(message):
            self._after(TRICKLE_PAUSE_S, self._trickle, message, sent + 1)
        else:
            self._done()

    def _done(self) -> None:
        if self.busy:
            self.busy = False
            self.server.in_flight -= 1


async def serve(server: FakeJudgeServer, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve until cancelled; `ready` gets the address, for port 0 the one that the system chose."""
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(lambda: HttpProtocol(server), host, port, backlog=4096)
    ready(f"http://{host}:{listener.sockets[0].getsockname()[1]}/v1")
    async with listener:
        await listener.serve_forever()
