"use strict";
// Makes the headings of tables with data-sortable buttons that sort. Without this script the tables keep their order.
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
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of headings) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const numeric = heading.classList.contains("number");
      const rows = [...body.rows];
      rows.sort((a, b) => {
        if (!numeric) return (ascending ? 1 : -1) * text(a, column).localeCompare(text(b, column), "en", { numeric: true });
        const [x, y] = [number(a, column), number(b, column)];
        // Cells without a value come last in both directions.
        if (Number.isNaN(x) || Number.isNaN(y)) return Number.isNaN(x) - Number.isNaN(y);
        return ascending ? x - y : y - x;
      });
      body.append(...rows);
    });
  });
}
