for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    if (head.hasAttribute("data-fixed")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const value = row => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const numbers = head.classList.contains("n");
      const down = head.ariaSort ? head.ariaSort === "ascending" : numbers;
      const order = (a, b) => (numbers ? a - b : a.localeCompare(b)) * (down ? -1 : 1);
      const known = [...body.rows].filter(row => value(row) !== "");
      const missing = [...body.rows].filter(row => value(row) === "");
      known.sort((a, b) => order(value(a), value(b)));
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      body.append(...known, ...missing);
    };
  });
}
const hint = () => document.querySelectorAll(".scroll").forEach(box =>
  box.previousElementSibling?.classList.toggle("shown", box.scrollWidth > box.clientWidth + 1));
addEventListener("resize", hint);
document.querySelectorAll("details").forEach(part => part.addEventListener("toggle", hint));
hint();
