"use strict";
// A click on a heading sorts the table by that column; a second click reverses the order.
for (const button of document.querySelectorAll("th button")) {
  button.disabled = false;
  button.addEventListener("click", () => {
    const heading = button.parentElement;
    const body = heading.closest("table").tBodies[0];
    const descending = heading.getAttribute("aria-sort") === "ascending";
    const value = (row) => row.cells[heading.cellIndex].dataset.number;
    const text = (row) => row.cells[heading.cellIndex].textContent;
    const compare = (a, b) => {
      if (value(a) === undefined || value(b) === undefined)
        return (value(a) === undefined) - (value(b) === undefined) || text(a).localeCompare(text(b));
      return value(a) - value(b);
    };
    const sign = descending ? -1 : 1;
    const rows = [...body.rows].sort((a, b) => sign * compare(a, b));
    for (const other of heading.parentElement.cells) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
    body.append(...rows);
  });
}
