// Takes a file that is dropped anywhere on a form with data-drop: into the field that it names, then shows the preview.
(() => {
  "use strict";
  const holdsFiles = (event) => [...event.dataTransfer.types].includes("Files");

  for (const form of document.querySelectorAll("form[data-drop]")) {
    const field = document.getElementById(form.dataset.drop);
    form.addEventListener("dragover", (event) => {
      if (!holdsFiles(event)) return;
      event.preventDefault();
      form.classList.add("dropping");
    });
    form.addEventListener("dragleave", (event) => {
      if (!form.contains(event.relatedTarget)) form.classList.remove("dropping");
    });
    form.addEventListener("drop", (event) => {
      form.classList.remove("dropping");
      if (!holdsFiles(event) || (event.target.type === "file" && event.target !== field)) return;
      event.preventDefault();
      const taken = new DataTransfer();
      taken.items.add(event.dataTransfer.files[0]);
      field.files = taken.files;
      form.querySelector("[data-preview]").click();
    });
  }
})();
