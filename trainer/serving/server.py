"""The serving process: an ASGI application that ranks, without a database and without Django.

The web process checks keys, finds the reranker and forwards the request with a header for the location of the artefact.
This process trusts every client with the service key of the installation; where it has a database, a gate
(`trainer.serving.access.access_cache`) admits users with their own keys, so that they need no web process. It loads models on first use
(`trainer.serving.model_cache`) and batches the pairs of concurrent requests (`trainer.serving.batcher`).
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs

from trainer.publishing.manifests import ManifestBroken
from trainer.serving.access.callers import (
    ARTEFACT_HEADER,
    KEY_HEADER,
    Admission,
    Caller,
    Gate,
    deadline_s,
)
from trainer.serving.access.limits import KeyLimits, OverLimit
from trainer.serving.addresses import (
    EMBED,
    EMBEDDINGS,
    HEALTH,
    METHODS,
    MODELS,
    SCORE,
    below_model,
    listed_model,
    unknown,
)
from trainer.serving.batcher import RequestBatcher, TooBusy
from trainer.serving.embedding import LoadedEmbedder
from trainer.serving.embedding_protocol import (
    EmbeddingRequest,
    check_size,
    embedding_answer,
    read_embedding_request,
    read_tei_embedding,
)
from trainer.serving.forms.pairs import EncodedPair, EncodedRequest, distinct
from trainer.serving.http.answers import Answer, json_answer, refused, warned
from trainer.serving.http.bodies import Gone, Receive, received, unless_gone
from trainer.serving.instructions import told_query, warnings_of
from trainer.serving.model_cache import Artefact, NoMemory, NotLoaded, WarmModels
from trainer.serving.operations import timing
from trainer.serving.operations.background import in_background
from trainer.serving.operations.description import info
from trainer.serving.operations.metrics import CONTENT_TYPE, ServingMetrics
from trainer.serving.operations.warming import WarmUp, compute_once
from trainer.serving.protocols import (
    RerankRefused,
    RerankRequest,
    answer,
    check_encoding,
    check_lengths,
    check_method,
    dialect_of,
    error_body,
    model_entry,
    model_id,
    read_body,
    read_request,
    warnings_of_truncation,
)
from trainer.serving.published import LoadedModel
from trainer.serving.score_protocol import ScoreRequest, read_score_request, score_answer

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]

BACKGROUND_HEADER = "x-zelo-background"
STATE, METRICS, WARM = "/state", "/metrics", "/warm"
LIVE, READY = "/healthz", "/readyz"
REQUEST_THREADS = 32
MOST_READ_AT_ONCE = 32 * 1024  # bytes of JSON that the event loop reads itself, in about a millisecond
log = logging.getLogger(__name__)
MOST_COMPARED_AT_ONCE = 100  # documents whose distances the event loop compares itself, in about a millisecond
# Whether the request is one in the background, whose client waits for nothing.
_is_background: ContextVar[bool] = ContextVar("is_background", default=False)
# The name of the request's model once it is found, never what a client wrote.
_model_name: ContextVar[str] = ContextVar("model_name", default="")


class RerankApp:
    """ASGI: the addresses of `trainer.serving.addresses`, GET /state, /metrics, /healthz and /readyz, and POST /warm.

    `service_keys`: the keys of the web server that are valid now, one of them required in `Authorization: Bearer`; called for
    each request (None: no key is required, for a private socket). `gate`: admits users' own keys as well.
    `default`: the artefact for requests without a header. `limits`: what one key may use. `metrics_keys`: keys that may read
    /metrics beside the service keys. `warm_up` loads models at the start; until it is over, the process is alive and not ready.
    """

    def __init__(
        self,
        *,
        models: WarmModels,
        batcher: RequestBatcher,
        service_keys: Callable[[], Sequence[str]] | None = None,
        default: Artefact | None = None,
        metrics: ServingMetrics | None = None,
        metrics_keys: Sequence[str] = (),
        warm_up: WarmUp | None = None,
        gate: Gate | None = None,
        limits: KeyLimits | None = None,
    ) -> None:
        self._models = models
        self._batcher = batcher
        self._service_keys = service_keys
        self._default = default
        self._metrics = metrics or ServingMetrics()
        self._metrics_keys = tuple(metrics_keys)
        self._warm_up = warm_up or WarmUp()
        self._gate = gate
        self._limits = limits or KeyLimits()
        self._started_at = int(time.time())
        self._threads = ThreadPoolExecutor(max_workers=REQUEST_THREADS, thread_name_prefix="request")
        # Loading has its own threads, so that requests for loaded models do not wait for it.
        self._loading = ThreadPoolExecutor(max_workers=32, thread_name_prefix="load")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            kind = message["type"]
            if kind == "lifespan.startup":
                self._loading.submit(self._warm_up.run, self._models)
            if kind == "lifespan.shutdown":
                self._batcher.close()
                self._threads.shutdown(wait=False)
                self._loading.shutdown(wait=False)
            await send({"type": f"{kind}.complete"})
            if kind == "lifespan.shutdown":
                return

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        began = time.monotonic()
        timing.start()
        try:
            with self._metrics.in_progress.track_inprogress():
                reply = await self._reply(scope, receive)
        except Gone:
            return
        seconds = time.monotonic() - began
        self._count(scope, reply.status, seconds)
        headers = [(b"content-type", reply.content_type.encode()), (b"content-length", b"%d" % len(reply.body))]
        headers += [(timing.TIMING_HEADER.encode(), timing.header(seconds).encode()), *reply.headers]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        """Count a request, if its address is one that ranks or embeds."""
        path, _ = below_model(scope["path"])
        if METHODS.get(path) == "POST":
            self._metrics.answered(path, _model_name.get(), status, seconds)

    async def _operation(self, path: str, method: str, headers: dict[str, str]) -> Answer | None:
        """The answer at an address for operators; None for all others."""
        if method in ("GET", "HEAD") and path in (LIVE, READY, HEALTH):
            if path == LIVE or self._warm_up.is_over:
                return json_answer(200, {"status": "ok"})
            told = "the models are being loaded; retry in a moment"
            return json_answer(503, {"error": told, "error_type": "Unhealthy", "message": told, "status": "loading"})
        if path == METRICS and method == "GET":
            given = headers.get("authorization", "")
            if self._service_keys is not None and not self._is_service_key(given, also=self._metrics_keys):
                raise RerankRefused(401, "send Authorization: Bearer with ZELO_METRICS_KEY")
            waiting, models = self._batcher.waiting_tokens, self._models.state()
            text = self._metrics.text(waiting_tokens=waiting, models=models, is_ready=self._warm_up.is_over)
            return Answer(200, text, content_type=CONTENT_TYPE)
        return None

    async def _for_the_web_server(self, path: str, method: str, caller: Caller) -> Answer:
        """The state, or the loading of a model before requests need it."""
        if method != ("GET" if path == STATE else "POST"):
            raise RerankRefused(405, f"{path} does not take {method[:20]}")
        if path == STATE:
            return json_answer(200, {"models": self._models.state(), "waiting_tokens": self._batcher.waiting_tokens})
        artefact = await self._artefact(caller, "")
        began = time.monotonic()
        async with self._using(artefact) as model:
            await self._in_thread(compute_once, model)
        return json_answer(200, {"model": artefact.name, "seconds": time.monotonic() - began})

    async def _reply(self, scope: Scope, receive: Receive) -> Answer:
        path, named = below_model(scope["path"])
        method = scope["method"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        dialect = dialect_of(path)
        _is_background.set(BACKGROUND_HEADER in headers)
        _model_name.set("")
        try:
            operation = await self._operation(path, method, headers)
            if operation is not None:
                return operation
            caller = await self._caller(path, headers, scope, named=named)
            if path in (STATE, WARM) and caller.user_key is None:
                return await self._for_the_web_server(path, method, caller)
            entry = listed_model(scope["path"])
            path = MODELS if entry else path
            if path not in METHODS:
                raise RerankRefused(404, unknown(path))
            check_method(path, method)
            if METHODS[path] == "GET":
                return await self._described(path, caller, entry)
            check_encoding(headers.get("content-encoding", ""))
            content = await received(receive, int(headers.get("content-length") or 0))
            body, warnings = await self._beside(len(content) > MOST_READ_AT_ONCE, read_body, content)
            dialect = dialect_of(path, body)
            with self._limits.request_of(caller.name):
                return await self._computing(path, body, warnings, caller, receive)
        except OverLimit as error:
            return refused(dialect, RerankRefused(429, str(error), retry_after_s=error.retry_after_s))
        except RerankRefused as error:
            return refused(dialect, error)
        except (ManifestBroken, OSError):
            log.exception("cannot read an artefact")
            told = "the reranker's files are missing or were changed after publishing; see the log of serve_rerank, then restore them or publish again"
            return json_answer(503, error_body(dialect, RerankRefused(503, told)))
        except Exception:  # third-party model code; its error may describe this machine and stays in the log
            log.exception("a request failed")
            told = "the reranker cannot be loaded or has failed; see the log of serve_rerank"
            return json_answer(500, error_body(dialect, RerankRefused(500, told)))

    async def _caller(self, path: str, headers: dict[str, str], scope: Scope, *, named: str) -> Caller:
        """The sender of the request, and the model that its address names. Raises RerankRefused for a key that is not valid."""
        allowed_s = deadline_s(headers)
        ends_at = time.monotonic() + allowed_s
        given = headers.get("authorization", "")
        if self._service_keys is None or self._is_service_key(given):
            return Caller(headers, path, None, headers.get(KEY_HEADER, ""), ends_at, allowed_s)
        if self._gate is None:
            raise RerankRefused(
                401, "this process answers the web server only; send the request to the web server, with your own key"
            )
        key = await self._in_thread(self._gate.key_of, given)
        query = parse_qs(scope.get("query_string", b"").decode("latin-1"))
        # Users cannot name a location: their headers do not count.
        own = {"model": query["model"][0]} if query.get("model") else {}
        return Caller(own | ({"named": named} if named else {}), path, key, str(key.pk), ends_at, allowed_s)

    def _is_service_key(self, authorization: str, also: Sequence[str] = ()) -> bool:
        given = authorization.removeprefix("Bearer ").encode()
        assert self._service_keys is not None
        return any(hmac.compare_digest(given, key.encode()) for key in (*self._service_keys(), *also))

    async def _artefact(self, caller: Caller, model: str) -> Artefact:
        found = await self._found(caller, model)
        _model_name.set(found.name)
        return found

    async def _found(self, caller: Caller, model: str) -> Artefact:
        if caller.user_key is not None:
            assert self._gate is not None
            # A client that cannot name a model has one in its address; what its body names is its own.
            name = caller.headers.get("named") or model or caller.headers.get("model", "")
            admitted: Admission = await self._in_thread(self._gate.admit, caller.user_key, caller.path, name)
            return admitted.artefact
        line = caller.headers.get(ARTEFACT_HEADER)
        if line:
            return Artefact(**json.loads(line))
        if self._default is None:
            raise RerankRefused(
                404, "no reranker is named; send the request to the web server, or start serve_rerank with a folder"
            )
        if model and model_id(model) != self._default.name:
            raise RerankRefused(404, f"model {model!r} is not served here; expected {self._default.name!r}")
        return self._default

    async def _described(self, path: str, caller: Caller, entry: str) -> Answer:
        """The list of models, or one of its entries, in OpenAI's format, or TEI's description of a model."""
        if path == MODELS:
            listed = self._listed()
            if caller.user_key is not None:
                assert self._gate is not None
                listed = await self._in_thread(self._gate.models_of, caller.user_key)
            return json_answer(200, model_entry(listed, entry) if entry else {"object": "list", "data": listed})
        artefact = await self._artefact(caller, "")
        async with self._using(artefact) as model:
            return json_answer(200, info(model, artefact, most_requests=REQUEST_THREADS))

    def _listed(self) -> list[dict[str, Any]]:
        if self._default is None:
            return []
        return [{"id": self._default.name, "object": "model", "created": self._started_at, "owned_by": "zelo"}]

    async def _computing(
        self, path: str, body: dict[str, Any], warnings: tuple[str, ...], caller: Caller, receive: Receive
    ) -> Answer:
        if path in (EMBEDDINGS, EMBED):
            wanted = (read_embedding_request if path == EMBEDDINGS else read_tei_embedding)(body, warnings)
            return await self._embed(wanted, await self._artefact(caller, wanted.model), caller, receive)
        if path in SCORE:
            pairs = read_score_request(body, warnings)
            return await self._score(pairs, await self._artefact(caller, pairs.model), caller, receive)
        request = read_request(path, body, warnings)
        return await self._rank(request, await self._artefact(caller, request.model), caller, receive)

    async def _rank(self, request: RerankRequest, artefact: Artefact, caller: Caller, receive: Receive) -> Answer:
        async with self._using(artefact) as model:
            more = warnings_of(model, request.instruction)

            def encode() -> EncodedRequest:
                query = told_query(model, request.query, request.instruction)
                tokens = request.document_tokens
                return model.encode(query, request.documents, document_tokens=tokens, go_on=caller.check_time)

            with timing.part("tokens"):
                encoded = await self._in_thread(encode)
            cut = sum(pair.cut for pair in encoded.pairs)
            self._metrics.truncated.labels(model.name).inc(cut)
            counts = {"cut": cut, "query_cut": encoded.query_cut, "query_tokens": model.query_tokens}
            check_lengths(truncate=request.truncate, longest=model.max_length, **counts)
            more += warnings_of_truncation(len(request.documents), **counts)
            request = replace(request, warnings=(*request.warnings, *more))
            outputs = await self._computed(model, encoded.pairs, caller, receive)
            outputs = await self._refined(model, [encoded.pairs], outputs, caller, receive, top_n=request.top_n)
            body = answer(
                request,
                model.ranked(outputs, top_n=request.top_n),
                model=artefact.name,
                tokens=encoded.tokens,
                cut=cut,
                query_cut=encoded.query_cut,
            )
            return json_answer(200, body, headers=warned(request.warnings if request.dialect == "tei" else ()))

    async def _score(self, request: ScoreRequest, artefact: Artefact, caller: Caller, receive: Receive) -> Answer:
        async with self._using(artefact) as model:
            more = warnings_of(model, request.instruction)

            def encode() -> list[EncodedRequest]:
                told = ((told_query(model, query, request.instruction), rest) for query, rest in request.groups)
                return [model.encode(query, documents, go_on=caller.check_time) for query, documents in told]

            with timing.part("tokens"):
                groups = await self._in_thread(encode)
            cut = sum(pair.cut for each in groups for pair in each.pairs)
            query_cut = any(each.query_cut for each in groups)
            counts = {"cut": cut, "query_cut": query_cut, "query_tokens": model.query_tokens}
            check_lengths(truncate=request.truncate, longest=model.max_length, **counts)
            pairs = [pair for each in groups for pair in each.pairs]
            documents = sum(len(own) for _, own in request.groups)
            more += warnings_of_truncation(documents, cut=cut, query_cut=query_cut, query_tokens=model.query_tokens)
            request = replace(request, warnings=(*request.warnings, *more))
            computed = await self._computed(model, pairs, caller, receive)
            outputs = iter(await self._refined(model, [each.pairs for each in groups], computed, caller, receive))
            scores: list[float] = []
            for each in groups:
                ranked = model.ranked([next(outputs) for _ in each.pairs])
                in_order = sorted(ranked, key=lambda row: row.index)
                scores += [row.logit if request.raw_scores else row.score for row in in_order]
            tokens = sum(each.tokens for each in groups)
            body = score_answer(request, scores, model=artefact.name, tokens=tokens, cut=cut, query_cut=query_cut)
            return json_answer(200, body)

    async def _embed(self, request: EmbeddingRequest, artefact: Artefact, caller: Caller, receive: Receive) -> Answer:
        async with self._using(artefact) as model:
            if not isinstance(model, LoadedEmbedder):
                raise RerankRefused(
                    422,
                    f"model {artefact.name!r} is a reranker and gives no embeddings; use /v1/rerank, or an embedding student",
                )
            check_size(request, model.sizes, model=artefact.name)
            encode = functools.partial(model.encode_texts, request.texts, role=request.role, go_on=caller.check_time)
            with timing.part("tokens"):
                encoded = await self._in_thread(encode)
            cut = sum(each.cut for each in encoded)
            counts = {"cut": cut, "query_cut": False, "query_tokens": model.query_tokens}
            check_lengths(truncate=request.truncate, longest=model.max_length, **counts)
            more = warnings_of_truncation(len(request.texts), cut=cut, query_cut=False, query_tokens=model.query_tokens)
            outputs = await self._computed(model, encoded, caller, receive)
            vectors = [model.shortened(each, request.size) for each in outputs]
            tokens = sum(len(each) for each in encoded)
            body = embedding_answer(request, vectors, model=artefact.name, tokens=tokens)
            return json_answer(200, body, headers=warned((*request.warnings, *more)))

    @contextlib.asynccontextmanager
    async def _using(self, artefact: Artefact) -> AsyncIterator[LoadedModel]:
        """The loaded model. Raises RerankRefused where memory or time is short."""
        with contextlib.ExitStack() as stack:
            try:
                if _is_background.get() and not self._models.is_warm(artefact):
                    raise RerankRefused(503, f"{artefact.name!r} is not loaded, and is not loaded in the background")
                try:
                    model = stack.enter_context(self._models.using(artefact, only_loaded=True))
                except NotLoaded:
                    loop = asyncio.get_running_loop()
                    model = await loop.run_in_executor(self._loading, stack.enter_context, self._models.using(artefact))
                self._warm_up.note(artefact)
                yield model
            except TooBusy as error:
                raise RerankRefused(429, str(error), retry_after_s=error.retry_after_s) from error
            except NoMemory as error:
                raise RerankRefused(503, str(error), retry_after_s=5) from error

    async def _beside(self, is_long: bool, function: Callable[..., Any], *arguments: Any) -> Any:
        """The result of a function; of one that takes long in a thread, so that other requests go on meanwhile."""
        return await self._in_thread(function, *arguments) if is_long else function(*arguments)

    async def _in_thread(self, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, function, *arguments)

    async def _refined(
        self,
        model: LoadedModel,
        groups: Sequence[Sequence[EncodedPair]],
        outputs: list[Any],
        caller: Caller,
        receive: Receive,
        *,
        top_n: int | None = None,
    ) -> list[Any]:
        """The outputs with the logits of float32 for documents whose order in their list is not certain."""
        if isinstance(model, LoadedEmbedder):
            return outputs
        rows, start = [], 0
        for group in groups:
            own = outputs[start : start + len(group)]
            unsure = await self._beside(
                len(own) > MOST_COMPARED_AT_ONCE, functools.partial(model.unsure, own, top_n=top_n)
            )
            rows += [start + row for row in unsure]
            start += len(group)
        if rows:
            pairs = [pair for group in groups for pair in group]
            found = await self._submitted(model.exact, [pairs[row] for row in rows], caller, receive)
            for row, logit in zip(rows, found, strict=True):
                outputs[row] = logit
        return outputs

    async def _computed(
        self, model: LoadedModel, pairs: Sequence[EncodedPair], caller: Caller, receive: Receive
    ) -> list[Any]:
        """The model's outputs. Raises OverLimit, TooBusy, and RerankRefused when the request's time is over."""
        caller.check_time()
        left_s, wait_s = caller.ends_at - time.monotonic(), self._batcher.wait_s
        if wait_s > left_s:
            raise RerankRefused(
                504, f"the queue takes about {wait_s:.1f} s and the request allows {left_s:.1f} s more; retry later"
            )
        tokens = sum(len(pair) for pair in pairs)
        self._limits.take(caller.name, tokens)
        try:
            outputs = await self._submitted(model, pairs, caller, receive)
        except TooBusy:
            self._limits.give_back(caller.name, tokens)
            raise
        self._metrics.documents.labels(model.name).inc(len(pairs))
        return outputs

    async def _submitted(self, model: Any, pairs: Sequence[EncodedPair], caller: Caller, receive: Receive) -> list[Any]:
        """The outputs of passes, computed in turn, or between the requests of others for one in the background."""
        computed, places = await self._beside(len(pairs) > MOST_COMPARED_AT_ONCE, distinct, pairs)
        if not _is_background.get():
            left_s = caller.ends_at - time.monotonic()
            with timing.part("model"):
                outputs = await unless_gone(self._batcher.submit(model, computed), receive, left_s=left_s)
            return [outputs[place] for place in places]
        try:
            outputs = await in_background(self._batcher, model, computed)
        except TooBusy:
            self._metrics.background.labels("dropped").inc()
            raise
        self._metrics.background.labels("computed").inc()
        return [outputs[place] for place in places]
