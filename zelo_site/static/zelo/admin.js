// The admin: a menu that opens on a phone, names of columns for tables that become cards there, "/" for the search field, and filters that close by Escape.
(() => {
  "use strict";
  const menu = document.querySelector(".z-menu");
  const side = document.getElementById("z-side");
  const show = (isOpen) => {
    side.classList.toggle("z-open", isOpen);
    menu.setAttribute("aria-expanded", String(isOpen));
  };
  for (const table of document.querySelectorAll(".z-table")) {
    const names = [...table.tHead.rows[0].cells].map((head) => head.textContent.trim());
    for (const row of table.tBodies[0].rows) {
      [...row.cells].forEach((cell, at) => { if (cell.matches("td")) cell.dataset.label = names[at]; });
    }
  }
  menu?.addEventListener("click", () => show(!side.classList.contains("z-open")));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && side?.classList.contains("z-open")) { show(false); menu.focus(); }
    const writes = event.target.closest("input, textarea, select");
    const search = document.getElementById("searchbar");
    if (event.key === "/" && search && !writes && !event.ctrlKey && !event.metaKey && !event.altKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });
})();
