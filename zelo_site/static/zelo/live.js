// Labels the cells of tables for phones, where each row is a card.
// Animates rows to their new places and keeps details open when htmx swaps a fragment.
// Also updates "fitted 3 s ago" between answers. Depends only on htmx's events.
(() => {
  "use strict";

  const still = window.matchMedia("(prefers-reduced-motion: reduce)");
  let places = new Map();
  let opened = new Set();

  const rows = (root) => root.querySelectorAll("[data-moves][id]");

  // A fragment asked for after the session has ended is the sign-in page, which belongs into the window.
  const isSignIn = (xhr) => Boolean(xhr.responseURL) && new URL(xhr.responseURL).pathname === document.body.dataset.signIn;

  document.addEventListener("htmx:beforeSwap", (event) => {
    if (isSignIn(event.detail.xhr)) {
      event.detail.shouldSwap = false;
      window.location.reload();
      return;
    }
    const target = event.detail.target;
    places = new Map([...rows(target)].map((row) => [row.id, row.getBoundingClientRect().top]));
    opened = new Set([...target.querySelectorAll("details[open][id]")].map((details) => details.id));
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const root = event.detail.elt.isConnected ? event.detail.elt : document;
    for (const id of opened) {
      const details = document.getElementById(id);
      if (details) details.open = true;
    }
    if (still.matches) return;
    for (const row of rows(root)) {
      const before = places.get(row.id);
      if (before === undefined) continue;
      const moved = before - row.getBoundingClientRect().top;
      if (Math.abs(moved) < 1 || Math.abs(moved) > 4 * window.innerHeight) continue;
      row.animate([{ transform: `translateY(${moved}px)` }, { transform: "none" }], {
        duration: 450,
        easing: "cubic-bezier(0.2, 0, 0, 1)",
      });
    }
  });

  // Shows a notice when the page cannot reach the server.
  const lost = (isLost) => {
    const notice = document.getElementById("lost");
    if (notice) notice.hidden = !isLost;
  };
  document.addEventListener("htmx:sendError", () => lost(true));
  document.addEventListener("htmx:afterRequest", (event) => {
    if (event.detail.successful) lost(false);
    if (event.detail.xhr && event.detail.xhr.status === 403) window.location.reload();
  });

  // On a phone the navigation of the comparison pages is one long row.
  document.querySelector(".lean nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

  // Each cell gets the name of its column, which zelo.css shows on a phone. Tables with joined cells keep their form.
  const label = (root) => {
    for (const table of root.querySelectorAll("main table:not(.ranking):not(.cards)")) {
      const heads = [...table.querySelectorAll(":scope > thead > tr:last-child > th")];
      const rows = [...table.querySelectorAll(":scope > tbody > tr")];
      if (heads.length < 3 || rows.some((row) => row.children.length !== heads.length)) continue;
      const names = heads.map((head) => (head.children.length === 1 && head.firstElementChild.matches(".aloud") ? "" : head.textContent.trim()));
      for (const row of rows) {
        [...row.children].forEach((cell, at) => {
          const isFilled = cell.children.length || cell.textContent.trim();
          if (cell.matches("td") && at > 0 && names[at] && isFilled) cell.dataset.label = names[at];
        });
      }
      table.classList.add("cards");
    }
  };
  label(document);
  document.addEventListener("htmx:afterSettle", () => label(document));

  const ago = (seconds) => {
    const texts = document.body.dataset;
    const said = (time) => texts.ago.replace("{time}", time);
    if (seconds < 1.5) return texts.justNow;
    if (seconds < 90) return said(`${Math.round(seconds)} s`);
    if (seconds < 5400) return said(`${Math.round(seconds / 60)} min`);
    if (seconds < 172800) return said(`${Math.round(seconds / 3600)} h`);
    return said(texts.days.replace("{n}", Math.round(seconds / 86400)));
  };

  const until = (seconds) => {
    const texts = document.body.dataset;
    if (seconds < 1) return texts.due;
    return texts.until.replace("{time}", seconds < 90 ? `${Math.round(seconds)} s` : `${Math.round(seconds / 60)} min`);
  };

  const tick = () => {
    for (const time of document.querySelectorAll("time[data-ago]")) {
      time.textContent = ago(Math.max(0, (Date.now() - Date.parse(time.dateTime)) / 1000));
    }
    for (const time of document.querySelectorAll("time[data-until]")) {
      time.textContent = until((Date.parse(time.dateTime) - Date.now()) / 1000);
    }
  };

  // An unchanged fragment (204) is as fresh as a new one.
  document.addEventListener("htmx:afterRequest", (event) => {
    if (!event.detail.successful) return;
    for (const time of document.querySelectorAll("time[data-polled]")) {
      if (time.dataset.polled === event.detail.elt.id) time.dateTime = new Date().toISOString();
    }
  });
  tick();
  window.setInterval(tick, 1000);
  document.addEventListener("htmx:afterSwap", tick);
})();
