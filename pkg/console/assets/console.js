// What the pages do beyond HTML: everything works without it, but the live parts.
"use strict";

// A live part is not replaced while somebody looks elsewhere, works in it with the
// keyboard, or selects its text.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  if (part.id !== "live") return;
  const selected = document.getSelection();
  const busy = part.contains(document.activeElement) ||
    selected && !selected.isCollapsed && part.contains(selected.anchorNode);
  if (document.hidden || busy) event.preventDefault();
});

// A live part whose page can't be had any more (the session has ended, say) is
// loaded whole, so that the reader sees why.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "live" && !event.detail.serverResponse.includes('id="live"')) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.target.dataset.confirm;
  if (question && !confirm(question)) event.preventDefault();
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const text = document.getElementById(button.dataset.copy).innerText;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(document.getElementById(button.dataset.copy));
    button.textContent = "Press Ctrl-C";
  }
  setTimeout(() => { button.textContent = "Copy"; }, 2000);
});

// Boxes of a list: all at once, and how many are chosen.
function count() {
  const button = document.querySelector("[data-needs]");
  if (!button) return;
  const boxes = [...document.querySelectorAll(`[name=${button.dataset.needs}]`)];
  const chosen = boxes.filter((b) => b.checked).length;
  button.disabled = chosen === 0;
  document.getElementById("chosen").textContent = chosen ? `${chosen} chosen` : "";
  const all = document.querySelector("[data-all]");
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length;
    all.indeterminate = chosen > 0 && chosen < boxes.length;
    all.disabled = boxes.length === 0;
  }
}
document.addEventListener("change", (event) => {
  const name = event.target.dataset.all;
  if (name) for (const box of document.querySelectorAll(`[name=${name}]`)) box.checked = event.target.checked;
  count();
  // A filter shows at once what it was set to.
  if (event.target.matches(".filters select")) event.target.form.requestSubmit();
});
count();
