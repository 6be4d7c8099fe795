// Makes the tables marked "sortable" sortable, searchable and filterable; without scripts they stay plain tables.
"use strict";

function listFilter(column) {
  const heading = column.header().textContent.trim();
  const choose = document.createElement("select");
  choose.setAttribute("aria-label", "Filter by " + heading);
  choose.add(new Option(heading + ": all", ""));
  const values = new Set(Array.from(column.nodes(), (cell) => cell.textContent.trim()));
  for (const value of Array.from(values).sort()) choose.add(new Option(value, value));
  choose.addEventListener("change", () => column.search(choose.value, { exact: choose.value !== "" }).draw());
  return choose;
}

// Sorting and searching look at a cell's text. E2 comes before E10: numbers in a text count by their value.
function plain(cell, purpose) {
  if (purpose === "display") return cell;
  const box = document.createElement("div");
  box.innerHTML = cell;
  const text = box.textContent.trim();
  return purpose === "sort" ? text.replace(/\d+/g, (digits) => digits.padStart(9, "0")) : text;
}

document.addEventListener("DOMContentLoaded", () => {
  for (const table of document.querySelectorAll("table.sortable")) {
    table.closest(".pst-scrollable-table-container")?.classList.add("holds-data-table");
    new TableBundle.default(table, {
      paging: false,
      order: [],
      autoWidth: false,
      columnDefs: [{ targets: "_all", type: "string", render: plain }],
      layout: { topStart: "info", topEnd: "search", bottomStart: null, bottomEnd: null },
      initComplete() {
        const filters = document.createElement("div");
        filters.className = "table-filters";
        this.api().columns(".filter").every(function () {
          filters.append(listFilter(this));
        });
        this.api().table().container().prepend(filters);
      },
    });
  }
});
