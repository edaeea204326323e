"""Files and batches of the fake judge: uploads, batches that take their time, results, and what can go wrong with them.

A batch answers its lines one after the other over `batch_s` seconds, by the clock, and writes each to the ledger as a live
call. Faults of one step (`upload`, `create`, `list`, `retrieve`, `content`, `cancel`) are ordered like those of calls;
`lost_reply` and `http_500_after` strike after the step was done. Faults of a whole batch (`OF_A_BATCH`) strike the next
ones that are created; "+" joins several.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.fake_judge.faults import FAULTS, Delivery, Reply

STEPS = ("upload", "create", "list", "retrieve", "content", "cancel")
AFTERWARDS = {"lost_reply", "http_500_after"}
OF_A_BATCH = {
    "expired": "ends when half of its lines are answered",
    "refused": "is refused as a whole: the model is unknown",
    "bad_line": "is refused because of its second line",
    "token_limit": "is refused because too many tokens are enqueued",
    "partial": "every third line fails with status 500",
    "missing": "every fourth line is left out",
    "reordered": "lines come back in reverse",
    "duplicated": "every line comes back twice",
    "garbage": "every fifth line is cut off",
    "late_file": "names its file of results only when its state is read the third time",
    "short_once": "the first download of its results is cut off after half of the lines",
    "never_ends": "stays in progress, even when it is cancelled",
    "odd_status": "spells its states as other providers do",
    "unknown_ids": "lines of strangers come with ours",
}
Answer = Callable[[dict[str, Any], str], tuple[int, dict[str, Any]]]


@dataclass
class File:
    """An uploaded file, or a file of results."""

    id: str
    name: str
    purpose: str
    content: bytes
    created_at: float


@dataclass
class Batch:
    """A batch: how many of its lines are answered follows from the clock."""

    id: str
    file: File
    metadata: dict[str, str]
    faults: frozenset[str]
    created_at: float
    lasts_s: float
    requests: list[dict[str, Any]]
    done: list[dict[str, Any]] = field(default_factory=list)
    status: str = "in_progress"
    cancelled_at: float | None = None
    output: File | None = None
    errors: File | None = None
    reads: int = 0


class Batches:
    """All files and batches; `answer(body, batch_id)` judges one request and writes it to the ledger."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.files: dict[str, File] = {}
        self.batches: dict[str, Batch] = {}
        self.uploads: Counter[str] = Counter()
        self.created: Counter[str] = Counter()
        self.batch_s = 0.3
        self.most_lines = 50_000
        self.steps: dict[str, deque[str]] = defaultdict(deque)
        self.coming: deque[str] = deque()
        self.numbers = 0

    # --- routes --------------------------------------------------------------------------

    def route(self, method: str, path: str, query: dict[str, str], headers: Any, body: bytes) -> Reply | None:
        """The reply of one of these addresses; None for any other."""
        self._advance_all()
        parts = path.removeprefix("/v1/").split("/")
        match (method, *parts):
            case ("POST", "files"):
                return self._step("upload", lambda: self._upload(headers, body))
            case ("GET", "files"):
                return self._step("list", lambda: self._list([_file_row(each) for each in self.files.values()], query))
            case ("GET", "files", file_id, "content"):
                return self._step("content", lambda: self._content(file_id))
            case ("DELETE", "files", file_id):
                self.files.pop(file_id)
                return _ok({"id": file_id, "object": "file", "deleted": True})
            case ("POST", "batches"):
                return self._step("create", lambda: self._create(json.loads(body)))
            case ("GET", "batches"):
                return self._step("list", lambda: self._list([_row(each) for each in self.batches.values()], query))
            case ("GET", "batches", batch_id):
                return self._step("retrieve", lambda: self._retrieve(batch_id))
            case ("POST", "batches", batch_id, "cancel"):
                return self._step("cancel", lambda: self._cancel(batch_id))
        return None

    def _step(self, name: str, act: Callable[[], Reply]) -> Reply:
        fault = self.steps[name].popleft() if self.steps[name] else ""
        if not fault:
            return act()
        if fault == "lost_reply":
            reply = act()
            reply.delivery = Delivery.DISCONNECT
            return reply
        if fault == "http_500_after":
            act()
            fault = "http_500"
        return FAULTS[fault]({"choices": []}, 0.1)

    def order(self, request: dict[str, Any]) -> dict[str, Any]:
        """{"steps": {step: [faults]}, "batches": [faults], "batch_s", "most_lines"}, each optional."""
        for step, faults in request.get("steps", {}).items():
            if step not in STEPS or set(faults) - set(FAULTS) - AFTERWARDS - {""}:
                raise ValueError(f"unknown faults {faults} of step {step!r}; steps are {STEPS}")
            self.steps[step].extend(faults)
        for faults in request.get("batches", []):
            if unknown := set(faults.split("+")) - set(OF_A_BATCH) - {""}:
                raise ValueError(f"unknown faults {sorted(unknown)}; known: {sorted(OF_A_BATCH)}")
            self.coming.append(faults)
        self.batch_s = float(request.get("batch_s", self.batch_s))
        self.most_lines = int(request.get("most_lines", self.most_lines))
        return {}

    def clear(self) -> None:
        """Forget faults that are ordered and have not struck."""
        self.steps.clear()
        self.coming.clear()

    def summary(self) -> dict[str, Any]:
        """Uploads by file name, batches by file, and the state of each batch."""
        self._advance_all()
        rows = [{**_row(each), "asked": len(each.done), "filename": each.file.name} for each in self.batches.values()]
        return {"uploads": dict(self.uploads), "created": dict(self.created), "batches": rows}

    # --- files ---------------------------------------------------------------------------

    def _id(self, prefix: str) -> str:
        self.numbers += 1
        return f"{prefix}-{self.numbers:06d}"

    def _keep(self, name: str, purpose: str, content: bytes) -> File:
        made = File(self._id("file"), name, purpose, content, time.time())
        self.files[made.id] = made
        return made

    def _upload(self, headers: Any, body: bytes) -> Reply:
        boundary = re.search(r"boundary=([^;]+)", headers.get("content-type", ""))
        if boundary is None:
            raise ValueError("an upload is multipart/form-data")
        name, purpose, content = "", "", b""
        for part in body.split(b"--" + boundary[1].strip('"').encode()):
            head, _, rest = part.partition(b"\r\n\r\n")
            if b'name="purpose"' in head:
                purpose = rest.strip().decode()
            elif found := re.search(rb'filename="([^"]*)"', head):
                name, content = found[1].decode(), rest.removesuffix(b"\r\n")
        if purpose != "batch" or not content:
            raise ValueError("an upload has the purpose 'batch' and a file")
        self.uploads[name] += 1
        return _ok(_file_row(self._keep(name, purpose, content)))

    def _content(self, file_id: str) -> Reply:
        if file_id not in self.files:
            return _not_found(file_id)
        content = self.files[file_id].content
        for batch in self.batches.values():
            if batch.output is not None and batch.output.id == file_id and "short_once" in batch.faults:
                batch.faults -= {"short_once"}
                lines = content.splitlines(keepends=True)
                return Reply(body=b"".join(lines[: len(lines) // 2]))
        return Reply(body=content)

    @staticmethod
    def _list(rows: list[dict[str, Any]], query: dict[str, str]) -> Reply:
        rows = list(reversed(rows))
        ids = [row["id"] for row in rows]
        start = ids.index(query["after"]) + 1 if query.get("after") in ids else 0
        end = start + int(query.get("limit", 20))
        return _ok({"object": "list", "data": rows[start:end], "has_more": end < len(rows)})

    # --- batches -------------------------------------------------------------------------

    def _create(self, request: dict[str, Any]) -> Reply:
        file = self.files[request["input_file_id"]]
        if request["endpoint"] != "/v1/chat/completions" or request["completion_window"] != "24h":
            raise ValueError("endpoint or completion_window is not supported")
        faults = frozenset(self.coming.popleft().split("+")) - {""} if self.coming else frozenset()
        lines = [json.loads(line) for line in file.content.splitlines() if line.strip()]
        batch = Batch(
            self._id("batch"), file, dict(request.get("metadata") or {}), faults, time.time(), self.batch_s, lines
        )
        if len(lines) > self.most_lines:
            batch.faults |= {"token_limit"}
        self.created[file.name] += 1
        self.batches[batch.id] = batch
        if batch.faults & {"refused", "bad_line", "token_limit"}:
            batch.status = "failed"
        return _ok(_row(batch))

    def _retrieve(self, batch_id: str) -> Reply:
        if batch_id not in self.batches:
            return _not_found(batch_id)
        batch = self.batches[batch_id]
        batch.reads += batch.status == "completed"
        return _ok(_row(batch))

    def _cancel(self, batch_id: str) -> Reply:
        batch = self.batches[batch_id]
        if batch.status in {"in_progress", "cancelling"}:
            batch.status, batch.cancelled_at = "cancelling", batch.cancelled_at or time.time()
            return _ok(_row(batch))
        error = {"message": f"Cannot cancel a batch with status '{batch.status}'.", "code": None}
        return Reply(409, json.dumps({"error": error}).encode())

    def _advance_all(self) -> None:
        now = time.time()
        for batch in self.batches.values():
            if batch.status in {"in_progress", "cancelling"}:
                self._advance(batch, now)

    def _advance(self, batch: Batch, now: float) -> None:
        """Answer what is due; end the batch when its time has come."""
        until = now if batch.cancelled_at is None else batch.cancelled_at
        share = (until - batch.created_at) / batch.lasts_s if batch.lasts_s > 0 else 1.0
        if "expired" in batch.faults:
            share = min(share, 0.5)
        due = min(len(batch.requests), int(share * len(batch.requests)))
        for place in range(len(batch.done), due):
            batch.done.append(self._line(batch, place))
        if "never_ends" in batch.faults:
            return
        is_over = now >= batch.created_at + batch.lasts_s
        if batch.status == "cancelling" and now >= (batch.cancelled_at or 0.0) + 0.1:
            self._end(batch, "cancelled")
        elif is_over and batch.status == "in_progress":
            self._end(batch, "expired" if "expired" in batch.faults else "completed")

    def _line(self, batch: Batch, place: int) -> dict[str, Any]:
        request = batch.requests[place]
        line: dict[str, Any] = {"id": f"req-{batch.id}-{place}", "custom_id": request["custom_id"], "error": None}
        if "partial" in batch.faults and place % 3 == 0:
            body = {"error": {"message": "The server had an error", "code": "server_error"}}
            return {**line, "response": {"status_code": 500, "request_id": "x", "body": body}}
        status, body = self.answer(request["body"], batch.id)
        return {**line, "response": {"status_code": status, "request_id": "x", "body": body}}

    def _end(self, batch: Batch, status: str) -> None:
        batch.status = status
        good = [line for line in batch.done if line["response"]["status_code"] == 200]
        bad = [line for line in batch.done if line["response"]["status_code"] != 200]
        code = {"expired": "batch_expired", "cancelled": "batch_cancelled"}.get(status)
        for request in batch.requests[len(batch.done) :] if code else []:
            error = {"code": code, "message": "This request was not executed."}
            bad.append({"custom_id": request["custom_id"], "response": None, "error": error})
        if good:
            batch.output = self._keep(f"{batch.id}_output.jsonl", "batch_output", _spoilt(good, batch.faults))
        if bad:
            batch.errors = self._keep(f"{batch.id}_error.jsonl", "batch_output", _lines(bad))


def _spoilt(lines: list[dict[str, Any]], faults: frozenset[str]) -> bytes:
    """The lines of results, as these faults leave them."""
    rows = list(lines)
    if "missing" in faults:
        rows = [row for place, row in enumerate(rows) if place % 4 != 3]
    if "duplicated" in faults:
        rows = [row for each in rows for row in (each, each)]
    if "reordered" in faults:
        rows.reverse()
    if "unknown_ids" in faults:
        strange = ("nobody", "999999999-1", "7", "-", "1" * 30, rows[0]["custom_id"] + "9")
        rows += [{**rows[0], "custom_id": name} for name in strange]
    texts = [json.dumps(row).encode() for row in rows]
    if "garbage" in faults:
        texts = [text[: len(text) // 2] if place % 5 == 4 else text for place, text in enumerate(texts)]
    return b"\n".join(texts) + b"\n"


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def _ok(document: Any) -> Reply:
    return Reply(200, json.dumps(document).encode())


def _not_found(name: str) -> Reply:
    return Reply(404, json.dumps({"error": {"message": f"No such object: {name}", "code": "not_found"}}).encode())


def _file_row(file: File) -> dict[str, Any]:
    return {
        "id": file.id, "object": "file", "bytes": len(file.content), "created_at": int(file.created_at),
        "filename": file.name, "purpose": file.purpose, "status": "processed",
    }  # fmt: skip


_ERRORS = {
    "refused": {"code": "model_not_found", "message": "The model does not exist.", "line": None},
    "bad_line": {"code": "invalid_request", "message": "Invalid body.", "line": 2},
    "token_limit": {"code": "token_limit_exceeded", "message": "Enqueued token limit reached.", "line": None},
}


def _row(batch: Batch) -> dict[str, Any]:
    errors = [_ERRORS[name] for name in sorted(batch.faults & set(_ERRORS))]
    failed = sum(line["response"]["status_code"] != 200 for line in batch.done)
    status, output = batch.status, batch.output.id if batch.output else None
    if "late_file" in batch.faults and batch.reads < 3:
        output = None
    if "odd_status" in batch.faults:
        status = {"completed": "SUCCESS", "in_progress": "RUNNING", "cancelled": "CANCELED"}.get(status, status)
    counts = {"total": len(batch.requests), "completed": len(batch.done) - failed, "failed": failed}
    return {
        "id": batch.id, "object": "batch", "endpoint": "/v1/chat/completions", "status": status,
        "errors": {"object": "list", "data": errors} if errors else None, "input_file_id": batch.file.id,
        "completion_window": "24h", "output_file_id": output,
        "error_file_id": batch.errors.id if batch.errors else None, "created_at": int(batch.created_at),
        "request_counts": counts, "metadata": batch.metadata,
    }  # fmt: skip
