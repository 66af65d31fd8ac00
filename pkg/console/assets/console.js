// Enhancements of the pages. Without JavaScript everything works except live updates.
"use strict";

// Do not refresh a live part while the page is hidden, or while the user has focus or
// selected text in it.
document.addEventListener("htmx:beforeRequest", (event) => {
  const part = event.detail.elt;
  if (part.id !== "live") return;
  const selected = document.getSelection();
  const busy = part.contains(document.activeElement) ||
    selected && !selected.isCollapsed && part.contains(selected.anchorNode);
  if (document.hidden || busy) event.preventDefault();
});

// If the response lacks the live part (the session has ended, for example), reload
// the page to show why.
document.addEventListener("htmx:beforeSwap", (event) => {
  if (event.detail.target.id === "live" && !event.detail.serverResponse.includes('id="live"')) {
    event.detail.shouldSwap = false;
    location.reload();
  }
});

document.addEventListener("submit", (event) => {
  const question = event.submitter?.dataset.confirm ?? event.target.dataset.confirm;
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

// Checkboxes of a list: select all, and the number selected.
function count() {
  const button = document.querySelector("[data-needs]");
  if (!button) return;
  const boxes = [...document.querySelectorAll(`[name=${button.dataset.needs}]`)];
  const chosen = boxes.filter((b) => b.checked).length;
  button.disabled = chosen === 0;
  document.getElementById("chosen").textContent = chosen ? `${chosen} selected` : "";
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
  // Submit a changed filter immediately.
  if (event.target.matches(".filters select")) event.target.form.requestSubmit();
});
count();

// Make scrollable parts reachable by keyboard.
function reachable() {
  for (const part of document.querySelectorAll(".scroll")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
    else part.removeAttribute("tabindex");
  }
}
window.addEventListener("load", reachable);
window.addEventListener("resize", reachable);
document.addEventListener("htmx:afterSettle", reachable);

// The overview's chart. Its element survives refreshes of the parts around it
// (hx-preserve), which carry the new data.
let plot = null;
function draw() {
  const place = document.getElementById("chart"), source = document.getElementById("minutes");
  if (!place || !source || !window.uPlot) return;
  const [at, delivered, failed] = JSON.parse(source.dataset.minutes);
  if (!at) return;
  const data = [at, delivered.map((n, i) => n + failed[i]), delivered];
  if (plot && plot.root.isConnected) {
    plot.setData(data);
    return;
  }
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const bars = uPlot.paths.bars({ size: [0.72, 16], radius: 0.2 });
  const line = { stroke: color("--muted"), ticks: { show: false }, font: "12px system-ui, sans-serif" };
  const clock = (t) => new Date(t * 1000).toLocaleTimeString([], { hour: "2-digit", minute: "2-digit", hour12: false });
  const pointed = document.getElementById("pointed");
  const legend = pointed.innerHTML;
  place.replaceChildren();
  plot = new uPlot({
    width: place.clientWidth, height: 180, legend: { show: false },
    cursor: { points: { show: false }, drag: { x: false, y: false }, y: false },
    scales: { y: { range: (u, low, high) => [0, Math.max(4, high * 1.1)] } },
    axes: [
      { ...line, size: 28, grid: { show: false }, values: (u, ticks) => ticks.map(clock) },
      { ...line, size: 46, grid: { stroke: color("--line"), width: 1 }, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 50000] },
    ],
    series: [{}, { fill: color("--bar-bad"), width: 0, paths: bars, points: { show: false } }, { fill: color("--bar-good"), width: 0, paths: bars, points: { show: false } }],
    hooks: {
      setCursor: [(u) => {
        const shown = document.getElementById("pointed"), i = u.cursor.idx;
        if (!shown) return;
        if (i == null || u.cursor.left < 0) { shown.innerHTML = legend; return; }
        shown.textContent = `${clock(u.data[0][i])}: ${u.data[2][i]} delivered, ${u.data[1][i] - u.data[2][i]} failed`;
      }],
    },
  }, data, place);
}
window.addEventListener("load", draw);
document.addEventListener("htmx:afterSettle", draw);
const redraw = () => { plot?.destroy(); plot = null; draw(); };
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let resized;
window.addEventListener("resize", () => { clearTimeout(resized); resized = setTimeout(redraw, 150); });
