// Copies an invitation, and lets an owner decide disagreements by single keys. Every key presses a button or follows
// a link that is on the page, so that nothing here can do what the page cannot.
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
  // One press, one verdict: a second one before the next page would decide the same pair again.
  document.addEventListener("submit", (event) => {
    if (!event.target.matches("[data-once]")) return;
    if (sent) event.preventDefault();
    sent = true;
  });
  window.addEventListener("pageshow", () => { sent = false; });
})();
