// Copies an invitation, and lets an owner decide disagreements with keyboard shortcuts. Each key clicks a button or
// link on the page, so the script can do nothing that the page cannot.
(() => {
  "use strict";

  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      const source = document.querySelector(button.dataset.copy);
      try {
        await navigator.clipboard.writeText(source.textContent.trim());
        button.textContent = button.dataset.done;
      } catch {
        window.getSelection().selectAllChildren(source); // no clipboard without TLS: marked, ready to be copied
      }
    });
  }

  const writes = (element) => element.closest("input:not([type=checkbox]):not([type=radio]), textarea, select, dialog[open]");

  let sent = false;
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.repeat || writes(event.target)) return;
    const key = event.key.length === 1 ? event.key.toUpperCase() : "";
    const target = key && document.querySelector(`[data-key="${CSS.escape(key)}"]:not([disabled])`);
    if (!target) return;
    event.preventDefault();
    target.click();
  });
  // Ignores a second submit before the next page, which would decide the same pair twice.
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-once]")) return;
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; });
})();
