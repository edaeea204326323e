// The frame: a menu that opens on a phone, group menus that close, and the palette. Ctrl-K finds pages and actions, "/" texts
// of queries and documents, the button with the project's name another project. The server makes every line of the palette.
(() => {
  "use strict";

  const top = document.querySelector(".top");
  const menu = top?.querySelector(".menu-button");
  const palette = document.getElementById("palette");
  if (!menu || !palette) return;

  const groups = () => [...top.querySelectorAll("details.group[open]")];
  menu.addEventListener("click", () => {
    const isOpen = top.classList.toggle("open");
    menu.setAttribute("aria-expanded", String(isOpen));
  });
  document.addEventListener("click", (event) => {
    for (const group of groups()) if (!group.contains(event.target)) group.open = false;
  });

  const input = document.getElementById("palette-input");
  const found = document.getElementById("palette-found");
  let mode = "pages";
  let asked = 0;
  let waiting = 0;

  const lines = () => [...found.querySelectorAll("[role=option]")];
  const choose = (line) => {
    for (const each of lines()) each.setAttribute("aria-selected", String(each === line));
    if (line) {
      input.setAttribute("aria-activedescendant", line.id);
      line.scrollIntoView({ block: "nearest" });
    } else input.removeAttribute("aria-activedescendant");
  };
  const chosen = () => found.querySelector("[aria-selected=true]");

  const ask = async () => {
    const number = ++asked;
    const query = new URLSearchParams({ q: input.value.trim(), mode, p: palette.dataset.project });
    try {
      const answer = await fetch(`${palette.dataset.address}?${query}`, { credentials: "same-origin" });
      if (number !== asked) return; // a later question has been sent
      if (answer.redirected || answer.status === 403) { window.location.reload(); return; }
      found.innerHTML = await answer.text(); // made by the server's templates, which escape every text
      choose(lines()[0]);
    } catch {
      document.getElementById("lost")?.removeAttribute("hidden");
    }
  };
  const open = (wanted) => {
    mode = wanted;
    input.placeholder = input.dataset[mode];
    for (const group of groups()) group.open = false;
    if (!palette.open) { palette.showModal(); input.value = ""; found.replaceChildren(); }
    input.focus();
    ask();
  };

  input.addEventListener("input", () => {
    window.clearTimeout(waiting);
    waiting = window.setTimeout(ask, 120);
  });
  input.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    const all = lines();
    const at = all.indexOf(chosen());
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      const step = event.key === "ArrowDown" ? 1 : -1;
      if (all.length) choose(all[(at + step + all.length) % all.length]);
    } else if (event.key === "Enter" && chosen()) {
      event.preventDefault();
      chosen().click();
    }
  });
  found.addEventListener("click", (event) => {
    if (event.target.closest("a") && !event.ctrlKey && !event.metaKey) palette.close();
  });
  palette.addEventListener("click", (event) => { if (event.target === palette) palette.close(); });

  for (const button of document.querySelectorAll("[data-find]")) {
    button.addEventListener("click", (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      open(button.dataset.find);
    });
  }

  const writes = (element) => element.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (event.isComposing) return;
    if (event.key.toLowerCase() === "k" && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      open("pages");
    } else if (event.key === "/" && !event.ctrlKey && !event.metaKey && !event.altKey && !writes(event.target) && !document.querySelector("dialog[open]")) {
      event.preventDefault();
      open("texts");
    } else if (event.key === "Escape") {
      const [group] = groups();
      if (group) { group.open = false; group.querySelector("summary").focus(); }
    }
  });
})();
