// Answers that have not reached the server. Each is a separate entry in localStorage, so that a person's tabs never
// overwrite each other's entries. One tab at a time sends them in order, with the idempotency key of each answer.

const PATIENCE_MS = 20000;
const DELAYS_MS = [1000, 2000, 4000, 8000, 15000, 30000];

// This page's token, not the cookie's: if somebody else signs in, their cookie must not send this person's answers.
let token = document.querySelector("[name=csrfmiddlewaretoken]").value;

// Reloads the page's token after the server rejected it. Returns false if another person is signed in now.
const renewToken = async () => {
  const response = await fetch(window.location.pathname, { cache: "no-store" });
  if (!response.ok) return true;
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const [was, is] = [document, page].map((each) => each.getElementById("screen"));
  if (!is || JSON.parse(is.textContent).user !== JSON.parse(was.textContent).user) return false;
  token = page.querySelector("[name=csrfmiddlewaretoken]").value;
  return true;
};

const newKey = () => {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6] & 15) | 64;
  bytes[8] = (bytes[8] & 63) | 128;
  const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
};

// Returns a request's outcome: "done", "later" (retry), "refused" (do not retry), "signed_out" or "gone" (no access).
export const send = async (url, body) => {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), PATIENCE_MS);
  try {
    const text = JSON.stringify(body);
    const response = await fetch(url, {
      method: "POST",
      headers: { "Content-Type": "application/json", Accept: "application/json", "X-CSRFToken": token },
      body: text,
      redirect: "manual",
      keepalive: text.length < 30000, // finished even if the tab is closed meanwhile
      signal: patience.signal,
    });
    if (response.type === "opaqueredirect" || response.status === 401) return { outcome: "signed_out" };
    const isJson = (response.headers.get("Content-Type") || "").includes("json");
    if (response.ok && isJson) return { outcome: "done", data: await response.json() };
    const data = isJson ? await response.json().catch(() => ({})) : {};
    const told = { status: response.status, data };
    const isToken = response.status === 403 && (!isJson || data.code === "csrf");
    if (isToken && !(await renewToken())) return { outcome: "signed_out" };
    if (response.status === 404 || (response.status === 403 && !isToken)) return { outcome: "gone", ...told };
    if ([400, 409, 413, 422].includes(response.status) && isJson) return { outcome: "refused", ...told };
    return { outcome: "later", ...told };
  } catch {
    return { outcome: "later", status: 0, data: {} };
  } finally {
    clearTimeout(timer);
  }
};

export class Outbox {
  constructor(user, project) {
    this.name = `zelo:${user}:${project}:`;
    this.memory = new Map();
    this.last = 0;
    this.delay = 0;
    this.keepsNothing = false;
  }

  // Returns the entries, oldest first. Skips entries that it cannot read: another version wrote them.
  entries() {
    const found = new Map(this.memory);
    try {
      for (let at = 0; at < localStorage.length; at += 1) {
        const id = localStorage.key(at);
        if (!id.startsWith(this.name)) continue;
        try {
          found.set(id, { ...JSON.parse(localStorage.getItem(id)), id });
        } catch {
          /* another version's */
        }
      }
    } catch {
      this.keepsNothing = true;
    }
    return [...found.values()].sort((one, other) => (one.id < other.id ? -1 : 1));
  }

  add(verb, body) {
    this.last = Math.max(Date.now(), this.last + 1);
    const key = newKey();
    const entry = { id: `${this.name}${String(this.last).padStart(15, "0")}:${key}`, verb, body: { key, ...body }, tries: 0 };
    this.keep(entry);
    return entry;
  }

  keep(entry) {
    const { id, ...rest } = entry;
    try {
      localStorage.setItem(id, JSON.stringify(rest));
      this.memory.delete(id);
      this.keepsNothing = false;
    } catch {
      this.memory.set(id, entry);
      this.keepsNothing = true;
    }
  }

  remove(entry) {
    this.memory.delete(entry.id);
    try {
      localStorage.removeItem(entry.id);
    } catch {
      /* it was in memory only */
    }
  }

  // Returns the slots that this browser has answered or skipped but not yet sent; an undo removes one.
  pendingSlots() {
    const pending = new Set();
    for (const { verb, body } of this.entries()) {
      if (verb === "undo") pending.delete(body.slot);
      else pending.add(body.slot);
    }
    return pending;
  }

  // Returns the slot that an undo refers to after all entries are sent; `stored` is the last slot the server knows.
  lastAnswered(stored) {
    const answered = stored === null ? [] : [stored];
    for (const { verb, body } of this.entries()) {
      if (verb === "answer") answered.push(body.slot);
      else if (verb === "undo" && answered[answered.length - 1] === body.slot) answered.pop();
    }
    return answered[answered.length - 1] ?? null;
  }

  // One tab sends at a time if the browser supports locks; otherwise the idempotency key makes duplicates harmless.
  async alone(work) {
    if (navigator.locks) return navigator.locks.request(this.name, work);
    return work();
  }

  nextDelay() {
    const delay = DELAYS_MS[Math.min(this.delay, DELAYS_MS.length - 1)];
    this.delay += 1;
    return delay;
  }
}
