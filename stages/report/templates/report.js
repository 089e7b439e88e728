// Tables sort by a click on a heading, inside each group; without JavaScript they stand as they are.
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending";
      table.querySelectorAll("thead th").forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      for (const body of table.tBodies) {
        const rows = [...body.rows].filter((row) => !row.classList.contains("group"));
        body.append(...rows.sort((a, b) => compare(key(a.cells[column]), key(b.cells[column]), down ? -1 : 1)));
      }
    });
  });
}
function key(cell) {
  const exact = cell.dataset.value ?? cell.dataset.difference;
  const text = exact ?? cell.textContent.trim();
  if (text === "" || text === "–" || text === "nan") return null;
  const number = Number(text.replaceAll(",", "").replace(/^[▲▼ ]+/, "").replace("−", "-"));
  return Number.isNaN(number) ? text : number;
}
function compare(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null); // what is not there comes last
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}

// What is wider than the page fades at its right edge, and a line below says that there is more, as long as there is.
for (const region of document.querySelectorAll(".scroll")) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "scroll for more columns →";
  region.after(hint);
  const look = () => {
    const more = region.scrollWidth - region.clientWidth - region.scrollLeft > 8;
    region.classList.toggle("cut", more);
    hint.hidden = !more;
  };
  region.addEventListener("scroll", look, { passive: true });
  new ResizeObserver(look).observe(region);
  look();
}
