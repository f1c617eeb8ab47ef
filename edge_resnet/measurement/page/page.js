"use strict";
// Tables marked data-sortable: a heading becomes a button. Without this script they are whole, in the order they came in.
for (const table of document.querySelectorAll("table[data-sortable]")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[0].cells];
  const number = (row, column) => parseFloat(row.cells[column].dataset.value);
  const text = (row, column) => row.cells[column].textContent.trim();
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    const note = heading.querySelector("small");
    button.textContent = heading.firstChild.textContent;
    heading.replaceChildren(button, ...(note ? [note] : []));
    button.addEventListener("click", () => {
      const up = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", up ? "ascending" : "descending");
      const numeric = heading.classList.contains("number");
      const rows = [...body.rows];
      rows.sort((a, b) => {
        if (!numeric) return (up ? 1 : -1) * text(a, column).localeCompare(text(b, column), "en", { numeric: true });
        const [x, y] = [number(a, column), number(b, column)];
        // What was not measured comes last either way.
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return up ? x - y : y - x;
      });
      body.append(...rows);
    });
  });
}
