// The comparison screen. The next pair is always loaded ahead: an answer goes into the outbox, the page shows the next
// pair at once and sends the answer in the background. The server's response brings the pair after that.
import { prepare, showText } from "./highlight.js";
import { Outbox, send } from "./outbox.js";

const given = JSON.parse(document.getElementById("screen").textContent);
const T = given.texts;
const by = (id) => document.getElementById(id);
const plural = new Intl.PluralRules(given.language);
const number = new Intl.NumberFormat(given.language);

const say = (text, values = {}) => text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? String(values[name]) : whole));
const count = (name, n) => say(T[`${name}_${plural.select(n) === "one" ? "one" : "other"}`], { n: number.format(n) });

const TOO_SOON_MS = 300; // a second press within this time counts as the same press
const HEARTBEAT_MS = 60000;
const IDLE_MS = 240000;
const ANSWER_OF_KEY = given.answers;
const DO_OF_KEY = { x: "reason", s: "skip", u: "undo", n: "note", m: "metadata", "?": "help" };

const outbox = new Outbox(given.user, given.project);
let items = []; // the pair shown, and those after it
let shown = null;
let fitted = null;
let state = "loading"; // loading, open, or why nothing is shown
let message = "";
let unplanned = false; // no pair of the project was ever given to people
let progress = {};
let history = []; // pairs answered on this page, for an undo without a request
let connection = "fine"; // fine, lost, trouble
let trouble = 0;
let seen = 0; // milliseconds that the pair was on a visible screen
let seenSince = 0;
let shownAt = 0;
let note = "";
const criteria = [...document.querySelectorAll("[data-criterion]")]; // buttons of the project's rubric
let lastUsed = Date.now();
let retryTimer = 0;
let lookTimer = 0;
let talking = false;
let talkAgain = false;
let mustAsk = true;
let wantsUndone = false;
let mustOrder = false; // use the server's order, after an undo that it rejected
let lastStored = null; // the slot of the last answer that the server knows
let putAside = "";

// --- what is shown --------------------------------------------------------------------------------

const sides = { left: by("side-a"), right: by("side-b") };

const valueText = (value) => (typeof value === "string" ? value : JSON.stringify(value));

const showSide = (element, document_, isCross) => {
  const text = element.querySelector(".text");
  showText(text, document_);
  text.scrollTop = 0;
  element.querySelector(".words").textContent = count("words", document_.words);
  const own = element.querySelector(".own-query");
  own.hidden = !isCross;
  own.querySelector("q").textContent = isCross ? document_.query : "";
  const metadata = Object.entries(document_.metadata || {});
  const folded = element.querySelector(".metadata");
  folded.hidden = metadata.length === 0;
  folded.querySelector("dl").replaceChildren(
    ...metadata.flatMap(([name, value]) => {
      const term = document.createElement("dt");
      const meaning = document.createElement("dd");
      term.textContent = name;
      meaning.textContent = valueText(value);
      term.dir = meaning.dir = "auto";
      return [term, meaning];
    })
  );
};

const showItem = (item, how = "announce") => {
  shown = item;
  seen = 0;
  seenSince = document.hidden ? 0 : performance.now();
  shownAt = performance.now();
  note = item.note || "";
  for (const button of criteria) button.setAttribute("aria-pressed", "false");
  by("note-text").value = note;
  showSide(sides.left, item.left, item.cross_query);
  showSide(sides.right, item.right, item.cross_query);
  const query = by("query");
  query.textContent = item.cross_query ? T.cross_question : item.left.query;
  query.classList.toggle("long", !item.cross_query && item.left.query.length > 160);
  query.scrollTop = 0;
  by("question").textContent = item.cross_query ? T.cross_over : T.better;
  by("pair").dataset.slot = item.slot;
  by("pair").classList.toggle("cross", item.cross_query);
  by("announcer").textContent = say(T[how], {
    question: item.cross_query ? T.cross_question : T.better,
    query: item.cross_query ? "" : item.left.query.slice(0, 300),
    a: count("words", item.left.words),
    b: count("words", item.right.words),
  });
  showNote();
};

// The documents take the height that some pair needed so far, up to the screen's: short texts are not lost in tall
// boxes, and the keys do not jump from pair to pair.
let need = 440;
const fit = () => {
  const texts = [...document.querySelectorAll(".side .text")];
  const lacking = Math.max(...texts.map((text) => text.scrollHeight - text.clientHeight));
  if (lacking > 0) need = Math.min(760, Math.max(need, by("pair").clientHeight + lacking));
  document.querySelector("main").style.setProperty("--need", `${need}px`);
  // What scrolls must be reachable by keyboard.
  for (const box of [by("query"), ...document.querySelectorAll(".own-query")]) {
    const scrolls = box.scrollHeight > box.clientHeight + 1;
    if (scrolls) box.tabIndex = 0;
    else if (box === by("query")) box.tabIndex = -1;
    else box.removeAttribute("tabindex");
  }
};

const showNote = () => {
  const button = document.querySelector('[data-do="note"]');
  button.classList.toggle("has-note", Boolean(note));
  button.title = note ? T.note_kept : "";
};

const showState = (name, text, link = null, title = T[`${name}_title`]) => {
  const box = by("state");
  if (by("state-title").textContent !== title) by("state-title").textContent = title;
  by("state-text").textContent = text;
  box.dataset.name = name;
  const anchor = by("state-link");
  anchor.hidden = !link;
  if (link) {
    anchor.href = link.href;
    anchor.textContent = link.text;
  }
  by("state-again").hidden = name !== "nothing_left";
  by("state-undo").hidden = !progress.done || !["nothing_left", "quota_reached"].includes(name);
  if (box.hidden) {
    box.hidden = false;
    by("announcer").textContent = `${title}. ${text}`;
  }
};

const waitingText = (name, waiting) => (waiting ? count(name, waiting) : T[`${name}_none`]);

// "Nothing left" would be wrong where no pair was ever planned.
const explainNothing = () => {
  const answers = progress.done ? { href: given.urls.answers, text: T.to_answers } : null;
  if (!unplanned) return showState("nothing_left", message || T.nothing_left_text, answers);
  if (!given.urls.people) return showState("nothing_left", T.unplanned_text, null, T.unplanned_title);
  return showState("nothing_left", T.unplanned_text_owner, { href: given.urls.people, text: T.to_people }, T.unplanned_title);
};

const explainState = (waiting) => {
  if (state === "signed_out") return showState("signed_out", waitingText("signed_out_text", waiting), { href: given.urls.sign_in, text: T.sign_in });
  if (state === "instruction") return showState("instruction", T.instruction_text, { href: given.urls.instruction, text: T.instruction_link });
  if (state === "nothing_left") return explainNothing();
  if (state === "quota_reached") return showState("quota_reached", message || T.quota_reached_text, { href: given.urls.answers, text: T.to_answers });
  if (state === "paused") return showState("paused", message || T.paused_text, { href: given.urls.answers, text: T.to_answers });
  if (state === "gone") return showState("gone", T.gone_text);
  if (connection === "lost") return showState("offline", waitingText("offline_text", waiting));
  return showState("loading", T.loading_text);
};

const showProgress = () => {
  const { done = 0, quota = null, seconds_per_pair: seconds = null } = progress;
  by("done").textContent = quota ? say(T.done, { done: number.format(done), quota: number.format(quota) }) : count("done_open", done);
  by("pace").textContent = seconds >= 0.5 ? say(T.pace, { seconds: number.format(Math.round(seconds)) }) : "";
  const left = progress.left ?? null;
  const whole = quota || (left === null ? 0 : done + left);
  const share = whole ? Math.min(100, Math.round((100 * done) / whole)) : 0;
  const track = by("track");
  track.hidden = !whole;
  track.setAttribute("aria-valuenow", share);
  track.firstElementChild.style.setProperty("inline-size", `${share}%`);
};

const showSaved = (waiting) => {
  const element = by("saved");
  let text = T.saved;
  let look = "saved";
  if (connection === "lost" || connection === "trouble") {
    look = "waiting";
    text = waiting ? count(connection === "lost" ? "waiting" : "kept", waiting) : T.offline;
  } else if (waiting && ["signed_out", "paused", "instruction", "gone"].includes(state)) {
    look = "waiting";
    text = count("kept", waiting);
  } else if (waiting) {
    look = "sending";
    text = T.sending;
  }
  if (element.textContent !== text) element.textContent = text;
  element.dataset.look = look;
};

const showProblem = () => {
  let text = putAside;
  if (outbox.keepsNothing) text = T.memory_only;
  else if (connection === "trouble") text = say(T.trouble, { status: trouble });
  const box = by("problem");
  if (box.firstElementChild.textContent !== text) box.firstElementChild.textContent = text;
  box.hidden = !text;
};

const draw = (how) => {
  const waiting = outbox.entries().length;
  const item = ["open", "loading"].includes(state) ? items[0] || null : null;
  if (item && item !== shown) showItem(item, how);
  if (!item) shown = null;
  by("pair").hidden = by("answers").hidden = !item;
  document.querySelector("main").classList.toggle("has-pair", Boolean(item));
  if (item) by("state").hidden = true;
  else explainState(waiting);
  if (item && item !== fitted) fit();
  fitted = item;
  showProgress();
  showSaved(waiting);
  showProblem();
  showLeft();
};

const clock = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;

const showLeft = () => {
  const element = by("left");
  if (!shown) return;
  const seconds = Math.max(0, (shown.until - Date.now()) / 1000);
  const text = seconds > 0 ? say(T.left, { time: clock(seconds) }) : T.left_over;
  if (element.textContent !== text) element.textContent = text;
  element.classList.toggle("soon", seconds < 30);
};

const showAfterwards = (data) => {
  const { feedback = null, others = null } = data;
  const tells = Boolean(feedback || (others && others.length));
  by("afterwards").hidden = !tells;
  by("afterwards").tabIndex = tells ? 0 : -1;
  if (tells) document.querySelector("main").classList.add("tells"); // its place stays free from now on
  const box = by("feedback");
  box.className = feedback ? (feedback.correct ? "agree" : "disagree") : "";
  box.textContent = feedback ? `${T.known} ${feedback.text}` : "";
  by("others").replaceChildren(
    ...(others || []).map((other) => {
      const row = document.createElement("li");
      const who = document.createElement("span");
      const what = document.createElement("b");
      const why = document.createElement("q");
      who.textContent = other.who;
      const share = other.preference_left;
      if (share === null || share === undefined) {
        what.textContent = "–";
      } else if (share === 0.5) {
        what.textContent = T.other_tie;
      } else {
        what.className = share > 0.5 ? "is-a" : "is-b";
        what.textContent = say(T.other_share, { side: share > 0.5 ? T.other_a : T.other_b, percent: Math.round(100 * Math.max(share, 1 - share)) });
      }
      why.textContent = other.rationale || "";
      why.hidden = !other.rationale;
      row.append(who, what, why);
      return row;
    })
  );
};

// --- requests to the server ------------------------------------------------------------------------

// Takes the server's pairs, except those answered on this page in the meantime, and keeps the pair on the screen.
// `isOrdered`: use the server's order, as after an undo.
const takeOver = (data, { isOrdered = false } = {}) => {
  state = data.state || "open";
  message = data.message || "";
  unplanned = Boolean(data.unplanned);
  progress = data.progress || progress;
  lastStored = data.last ?? null;
  const pending = outbox.pendingSlots();
  const now = Date.now();
  const known = new Map(items.map((item) => [item.slot, item]));
  const fresh = (data.items || [])
    .filter((item) => !pending.has(item.slot))
    .map((item) => Object.assign(known.get(item.slot) || item, { until: now + 1000 * item.lease_s }));
  const keeps = !isOrdered && shown && !pending.has(shown.slot) && state === "open";
  items = keeps ? [shown, ...fresh.filter((item) => item.slot !== shown.slot)] : fresh;
  whenIdle(() => items.forEach((item) => [item.left, item.right].forEach(prepare)));
  clearTimeout(lookTimer);
  if (!items.length && ["nothing_left", "open", "paused"].includes(state)) {
    lookTimer = setTimeout(look, 1000 * Math.max(2, Math.min(120, data.retry_after_s || 20)));
  }
};

const whenIdle = (work) => (window.requestIdleCallback ? requestIdleCallback(work, { timeout: 500 }) : setTimeout(work, 50));

const later = (result) => {
  connection = result.status ? "trouble" : "lost";
  trouble = result.status;
  clearTimeout(retryTimer);
  retryTimer = setTimeout(talk, outbox.nextDelay());
};

// True where the next entry may be sent.
const settle = (entry, result) => {
  if (result.outcome === "later") {
    later(result);
    return false;
  }
  connection = "fine";
  outbox.delay = 0;
  if (result.outcome === "done" || result.outcome === "refused") {
    if (entry) outbox.remove(entry);
    if (result.outcome === "refused") {
      const error = result.data.error || result.status;
      putAside = entry?.verb === "undo" ? error : say(T.refused, { error });
      mustAsk = true;
      if (entry?.verb === "undo") {
        mustOrder = true;
        wantsUndone = false;
        history = [];
      }
      return Boolean(entry);
    }
    mustAsk = false;
    const undoes = entry && entry.verb === "undo";
    takeOver(result.data, { isOrdered: mustOrder || (undoes && wantsUndone) });
    mustOrder = false;
    if (undoes) wantsUndone = false;
    else if (entry && entry.verb === "answer") {
      if (result.data.stored === "already") putAside = T.already; // as after an undo that the server rejected
      showAfterwards(result.data);
    }
    return true;
  }
  state = result.outcome;
  return false;
};

// A deleted pair is no reason to stop; a deleted project is.
const judged = async (result) => {
  if (result.outcome !== "gone") return result;
  const asked = await send(given.urls.next, {});
  return asked.outcome === "done" ? { ...result, outcome: "refused" } : result;
};

const converse = async () => {
  let entry;
  while ((entry = outbox.entries()[0])) {
    outbox.keep({ ...entry, tries: entry.tries + 1 });
    const result = await send(given.urls[entry.verb], entry.body);
    const how = wantsUndone ? "announce_back" : "announce";
    const goesOn = settle(entry, await judged(result));
    draw(how);
    if (!goesOn) return;
  }
  if (mustAsk) {
    settle(null, await send(given.urls.next, {}));
    draw();
  }
};

async function talk() {
  if (talking) {
    talkAgain = true;
    return;
  }
  talking = true;
  clearTimeout(retryTimer);
  try {
    do {
      talkAgain = false;
      await outbox.alone(converse);
    } while (talkAgain);
  } finally {
    talking = false;
    draw();
  }
}

const look = () => {
  if (document.hidden && items.length) return;
  mustAsk = true;
  talk();
};

const beat = async () => {
  const isUsed = !document.hidden && Date.now() - lastUsed < IDLE_MS;
  if (!isUsed || !items.length || connection !== "fine" || talking) return;
  const result = await send(given.urls.heartbeat, { slots: items.map((item) => item.slot) });
  if (result.outcome !== "done") return;
  const now = Date.now();
  for (const item of items) {
    const seconds = (result.data.lease_s || {})[item.slot];
    if (seconds !== undefined) item.until = now + 1000 * seconds;
  }
  showLeft();
};

// --- actions of the person -------------------------------------------------------------------------

const isTooSoon = () => performance.now() - shownAt < TOO_SOON_MS;

const secondsSeen = () => Math.round((seen + (seenSince ? performance.now() - seenSince : 0)) / 100) / 10;

const goOn = () => {
  items = items.filter((item) => item !== shown);
  if (items.length < 2) mustAsk = mustAsk || !items.length;
  putAside = "";
  draw();
  talk();
};

const flash = (answer) => {
  const button = document.querySelector(`[data-answer="${answer}"]`);
  if (!button) return;
  button.classList.add("pressed");
  setTimeout(() => button.classList.remove("pressed"), 180);
};

// The criteria that decided an answer stand before its note: "answers, recency: newer by a year".
const noteWithCriteria = () => {
  const chosen = criteria.filter((button) => button.getAttribute("aria-pressed") === "true");
  return [chosen.map((button) => button.dataset.criterion).join(", "), note].filter(Boolean).join(": ");
};

const toggle = (button) => button.setAttribute("aria-pressed", String(button.getAttribute("aria-pressed") !== "true"));

const answer = (value, reason = "") => {
  if (!shown || isTooSoon()) return;
  by("afterwards").hidden = true;
  outbox.add("answer", { slot: shown.slot, answer: value, reason, note: noteWithCriteria(), seconds: secondsSeen() });
  history.push({ ...shown, note });
  history = history.slice(-20);
  flash(value);
  goOn();
};

const skip = () => {
  if (!shown || isTooSoon()) return;
  outbox.add("skip", { slot: shown.slot });
  goOn();
};

const MAY_UNDO = ["open", "loading", "nothing_left", "quota_reached"];

const undo = () => {
  if (!MAY_UNDO.includes(state) || wantsUndone) return;
  by("afterwards").hidden = true;
  const entries = outbox.entries();
  const last = entries[entries.length - 1];
  const item = history.pop();
  const slot = item ? item.slot : outbox.lastAnswered(lastStored);
  putAside = slot === null ? T.undo_none : "";
  if (slot === null) return draw();
  if (last && last.verb === "answer" && last.body.slot === slot && last.tries === 0) {
    outbox.remove(last);
  } else {
    outbox.add("undo", { slot });
    wantsUndone = !item;
  }
  if (item) {
    items = [item, ...items.filter((each) => each.slot !== item.slot)];
    state = "open";
  } else if (wantsUndone) {
    by("announcer").textContent = T.undo_sent;
  }
  draw("announce_back");
  talk();
};

const toggleMetadata = () => {
  const folded = document.querySelectorAll(".metadata");
  const isOpen = [...folded].some((each) => each.open);
  for (const each of folded) each.open = !isOpen;
};

const open = (id) => {
  if (id === "reasons" && (!shown || isTooSoon())) return;
  if (id === "note" && !shown) return;
  by("note-text").value = note;
  by(id).showModal();
  if (id === "note") by("note-text").focus();
};

const closeDialog = () => document.querySelector("dialog[open]")?.close();

const keepNote = () => {
  note = by("note-text").value.trim();
  closeDialog();
  showNote();
};

const giveReason = (value) => {
  closeDialog();
  answer("cannot_judge", value);
};

const ACTIONS = {
  reason: () => open("reasons"),
  note: () => open("note"),
  help: () => open("help"),
  skip,
  undo,
  metadata: toggleMetadata,
  cancel: closeDialog,
  keep: keepNote,
  close: () => { by("afterwards").hidden = true; },
};

// --- keys, buttons, time --------------------------------------------------------------------------

const SINGLE = "zelo:single-keys";
const remembers = (name) => {
  try {
    return localStorage.getItem(name);
  } catch {
    return null;
  }
};
const singleKeys = by("single-keys");
singleKeys.checked = remembers(SINGLE) !== "off";
singleKeys.addEventListener("change", () => {
  try {
    localStorage.setItem(SINGLE, singleKeys.checked ? "on" : "off");
  } catch {
    /* it holds for this page */
  }
});

const digitOf = (event) => {
  const match = /^(?:Digit|Numpad)(\d)$/.exec(event.code);
  if (/^\d$/.test(event.key)) return event.key;
  return match && !event.shiftKey ? match[1] : null;
};

const scrollBoth = (event) => {
  const steps = { ArrowDown: 60, ArrowUp: -60, PageDown: 400, PageUp: -400 };
  const step = steps[event.key];
  if (!step || event.target.closest(".text, summary")) return false;
  const texts = [...document.querySelectorAll(".side .text")].filter((each) => each.scrollHeight > each.clientHeight + 1);
  if (!texts.length || document.documentElement.scrollHeight > window.innerHeight + 1) return false;
  for (const each of texts) each.scrollTop += step;
  return true;
};

const press = (event) => {
  const dialog = document.querySelector("dialog[open]");
  const digit = digitOf(event);
  if (dialog) {
    if (dialog.id === "note" && event.key === "Enter" && (event.ctrlKey || event.metaKey)) return keepNote(), true;
    if (dialog.id !== "reasons" || digit === null) return false;
    const chosen = dialog.querySelectorAll("[data-reason]")[Number(digit) - 1];
    if (chosen) giveReason(chosen.dataset.reason);
    return Boolean(chosen);
  }
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select")) return false;
  if (!singleKeys.checked) return false;
  if (digit !== null && digit in ANSWER_OF_KEY) return answer(ANSWER_OF_KEY[digit]), true;
  const criterion = shown && criteria.find((button) => button.getAttribute("aria-keyshortcuts") === event.key.toUpperCase());
  if (criterion) return toggle(criterion), true;
  const action = DO_OF_KEY[event.key.toLowerCase()];
  if (action) return ACTIONS[action](), true;
  return scrollBoth(event);
};

document.addEventListener("keydown", (event) => {
  lastUsed = Date.now();
  if (event.isComposing || (event.repeat && !event.key.startsWith("Arrow") && !event.key.startsWith("Page"))) return;
  if (press(event)) event.preventDefault();
});

document.addEventListener("click", (event) => {
  lastUsed = Date.now();
  const button = event.target.closest("[data-answer], [data-reason], [data-do], [data-criterion]");
  if (!button) return;
  if (button.dataset.criterion) return toggle(button);
  if (button.dataset.answer) answer(button.dataset.answer);
  else if (button.dataset.reason) giveReason(button.dataset.reason);
  else ACTIONS[button.dataset.do]();
});
by("state-again").addEventListener("click", look);

for (const name of ["pointermove", "scroll", "touchstart"]) {
  document.addEventListener(name, () => { lastUsed = Date.now(); }, { passive: true, capture: true });
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    if (seenSince) seen += performance.now() - seenSince;
    seenSince = 0;
    return;
  }
  seenSince = performance.now();
  lastUsed = Date.now();
  if (connection !== "fine" || outbox.entries().length) talk();
  else if (!shown || shown.until < Date.now()) look();
  else beat();
});
window.addEventListener("online", talk);
window.addEventListener("pageshow", (event) => {
  if (event.persisted) look();
});
window.addEventListener("beforeunload", (event) => {
  if (outbox.memory.size) event.preventDefault();
});

// Another tab answered, or its answers have arrived.
window.addEventListener("storage", (event) => {
  if (event.key !== null && !event.key.startsWith(outbox.name)) return;
  const pending = outbox.pendingSlots();
  const told = event.newValue ? JSON.parse(event.newValue) : null;
  if (told?.body?.slot && told.verb !== "undo") pending.add(told.body.slot); // it may have been sent since
  const wasShown = shown;
  items = items.filter((item) => !pending.has(item.slot));
  if (items.length < 2) mustAsk = true;
  draw();
  if (wasShown && wasShown !== shown) by("announcer").textContent = T.elsewhere;
  if (event.key !== null && event.newValue === null) talk();
});

setInterval(showLeft, 1000);
setInterval(beat, HEARTBEAT_MS);
draw();
talk();
