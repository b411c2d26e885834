"use strict";

// Sorting: a button in each heading; missing values stay at the end in both directions.
function sortBy(table, button) {
  const heading = button.closest("th");
  const direction = heading.getAttribute("aria-sort") === "ascending" ? "descending" : "ascending";
  for (const other of heading.parentElement.cells) other.setAttribute("aria-sort", other === heading ? direction : "none");
  const column = heading.cellIndex, sign = direction === "ascending" ? 1 : -1;
  const valueOf = (row) => row.cells[column].dataset.value;
  const compare = (one, other) => {
    const left = valueOf(one), right = valueOf(other);
    if (left === "" || right === "") return (left === "") - (right === "");
    const difference = Number(left) - Number(right);
    return sign * (Number.isNaN(difference) ? left.localeCompare(right, "en", { numeric: true }) : difference);
  };
  const body = table.tBodies[0];
  body.append(...[...body.rows].sort(compare));
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.querySelectorAll("button.sort")) button.addEventListener("click", () => sortBy(table, button));
}

// The style sheet hides what is after the first 50 rows, whichever they are after sorting, until all are asked for.
for (const button of document.querySelectorAll("button.more")) {
  button.addEventListener("click", () => {
    document.getElementById(button.getAttribute("aria-controls")).classList.add("whole");
    button.remove();
  });
}

// Sliders: one picture per loop lies in its figure, one of them is shown.
for (const figure of document.querySelectorAll("figure.picture")) {
  const slider = figure.querySelector("input"), output = figure.querySelector("output");
  const frames = figure.querySelectorAll(".frame");
  if (!slider) continue;
  const show = () => {
    frames.forEach((frame, position) => frame.classList.toggle("current", position + 1 === slider.valueAsNumber));
    output.value = `${slider.value} of ${slider.max}`;
    slider.setAttribute("aria-valuetext", `loop ${slider.value} of ${slider.max}`);
  };
  slider.addEventListener("input", show);
  slider.value = "1"; // browsers remember positions over a reload
  show();
}

// Without this script all loops are shown below each other; with it, the one of the slider.
document.documentElement.classList.add("script");
