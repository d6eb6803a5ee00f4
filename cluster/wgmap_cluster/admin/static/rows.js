// Rows of a table: walked with keys, and in place of those before without the focus getting lost.

// The row of a key that is on the page now: the element that stood for it may be another one by then.
export function rowOf(key) {
  return key ? document.querySelector(`tr[data-key="${CSS.escape(key)}"]`) : null;
}

// Redraw the rows of a table's body; the one that had the focus has it again.
export function redrawn(body, redraw) {
  const at = body.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  redraw();
  rowOf(at)?.focus({ preventScroll: true });
}

// Go from the search field above the rows into them, and with j, k and arrows from row to row.
export function walked(input, table, body) {
  input.addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown" && event.key !== "Enter") return;
    event.preventDefault();
    body.firstElementChild?.focus();
  });
  table.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    const row = event.target.closest("tr");
    if (!step || !row) return;
    event.preventDefault();
    (step > 0 ? row.nextElementSibling : row.previousElementSibling ?? input)?.focus();
  });
}
