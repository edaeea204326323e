// The list of queries: counts the selection, ticks a page at once, and moves by keyboard: J and K, X to select, Enter to open.
(() => {
  "use strict";

  const form = document.getElementById("queries");
  if (!form) return;
  const rows = [...form.querySelectorAll("tbody tr")];
  const ticks = [...form.querySelectorAll("tbody input[name=query]")];
  const page = document.getElementById("select-page");
  const all = document.getElementById("select-all");
  const said = document.getElementById("selected");
  let reached = -1;

  const count = () => {
    if (!said) return;
    const chosen = ticks.filter((tick) => tick.checked).length;
    page.checked = chosen === ticks.length;
    page.indeterminate = chosen > 0 && chosen < ticks.length;
    said.hidden = Boolean(all?.checked);
    said.textContent = chosen ? said.dataset.some.replace("{n}", chosen) : said.dataset.none;
  };
  page?.addEventListener("change", () => {
    for (const tick of ticks) tick.checked = page.checked;
    count();
  });
  form.addEventListener("change", count);
  window.addEventListener("pageshow", count);

  const move = (step) => {
    const next = Math.min(rows.length - 1, Math.max(0, reached + step));
    rows[reached]?.classList.remove("reached");
    reached = next;
    rows[reached].classList.add("reached");
    rows[reached].querySelector("th a").focus({ preventScroll: true });
    rows[reached].scrollIntoView({ block: "nearest" });
  };
  const writes = (element) => element.closest("input:not([type=checkbox]), textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey || writes(event.target) || document.querySelector("dialog[open]")) return;
    const key = event.key.toLowerCase();
    if (key === "j" || key === "k") move(key === "j" ? 1 : -1);
    else if (key === "x" && reached >= 0 && ticks[reached]) {
      ticks[reached].checked = !ticks[reached].checked;
      count();
    } else return;
    event.preventDefault();
  });
})();
