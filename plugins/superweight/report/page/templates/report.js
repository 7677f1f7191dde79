"use strict";
// Everything on the page is readable without this: it filters, sorts, opens what a link names, and saves pictures.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const one = (selector, within = document) => within.querySelector(selector);
  for (const element of all(".needs-script")) element.hidden = false;

  // Filters: a row of figures and a cell's details are shown together.
  const form = one("#filters");
  const cells = all("[data-cell][data-words]");
  const gateVerdict = (cell, gate) =>
    cell.dataset.gates.split(" ").filter((pair) => pair.startsWith(`${gate}=`)).map((pair) => pair.slice(gate.length + 1))[0];
  const matches = (cell, { q, model, recipe, role, gate, verdict }) => {
    const words = `${cell.dataset.words} ${cell.dataset.gates.toLowerCase()}`;
    const found = gate ? gateVerdict(cell, gate) : cell.dataset.verdict;
    return (!model || cell.dataset.model === model) && (!recipe || cell.dataset.recipe === recipe) && (!role || cell.dataset.role === role)
      && (!gate || found !== undefined) && (!verdict || found === verdict)
      && q.toLowerCase().split(/\s+/).every((word) => words.includes(word));
  };
  const filter = () => {
    const wanted = Object.fromEntries(new FormData(form));
    let shown = 0;
    for (const cell of cells) {
      const here = matches(cell, wanted);
      cell.classList.toggle("outside", !here);
      if (here && cell.tagName === "TR") shown += 1;
    }
    const every = all("#figures tbody tr").length;
    one("#matching").textContent = shown === every ? `${every} cells` : `${shown} of ${every} cells`;
  };
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(filter));
  filter();

  // Sorting by a click on a heading; figures as numbers, the rest as text.
  for (const table of all("table.sortable")) {
    all("thead th", table).forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => sort(table, heading, column));
    });
  }
  function sort(table, heading, column) {
    const down = heading.getAttribute("aria-sort") === "ascending";
    for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.by ?? cell.textContent.trim();
      const number = text === "inf" ? Infinity : text === "-inf" ? -Infinity : Number(text);
      return text === "" ? null : Number.isNaN(number) ? text.toLowerCase() : number;
    };
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => [key(row), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);  // what is missing comes last
      const before = typeof a === typeof b ? (a < b ? -1 : a > b ? 1 : 0) : typeof a === "number" ? -1 : 1;
      return down ? -before : before;
    });
    body.append(...rows.map(([, row]) => row));
  }

  // A link to a cell opens it.
  const reveal = () => {
    let target = null;
    try { target = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    const cell = target?.closest("details.cell");
    if (!cell) return;
    cell.classList.remove("outside");
    cell.open = true;
    cell.scrollIntoView();
    one("summary", cell).focus({ preventScroll: true });
  };
  addEventListener("hashchange", reveal);
  reveal();
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[href^='#']");
    if (link && link.getAttribute("href") === location.hash) reveal();  // the same link again
    const mark = event.target.closest?.("svg [data-cell]");
    if (mark?.dataset.cell) location.hash = mark.dataset.cell;
  });
  one("#open").addEventListener("click", () => {
    for (const cell of all("details.cell")) cell.open ||= cell.dataset.verdict !== "PASS" && !cell.classList.contains("outside");
  });
  one("#close").addEventListener("click", () => { for (const cell of all("details.cell")) cell.open = false; });
  addEventListener("beforeprint", () => {
    for (const cell of all("details.cell:not(.aside)")) cell.open = true;
  });

  // Changed answers, by words and by direction.
  for (const block of all("details.flips")) {
    const [find, direction] = [one(".find", block), one(".direction", block)];
    if (!find) continue;  // of a cell whose answers are left to the tables
    const narrow = () => {
      for (const row of all("tbody tr", block)) {
        const words = row.textContent.toLowerCase();
        const fits = (!direction.value || row.cells[1].textContent === direction.value)
          && find.value.toLowerCase().split(/\s+/).every((word) => words.includes(word));
        row.classList.toggle("outside", !fits);
      }
    };
    find.addEventListener("input", narrow);
    direction.addEventListener("input", narrow);
  }

  // What a mark says of itself.
  const tip = one("#tip");
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest?.("[data-tip]");
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    const { width, height } = tip.getBoundingClientRect();
    tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, innerWidth - width - 8))}px`;
    tip.style.top = `${event.clientY + height + 30 > innerHeight ? event.clientY - height - 12 : event.clientY + 18}px`;
  });

  // Light, dark, or as the system has it.
  const button = one("#theme");
  const themes = ["", "light", "dark"];
  const show = (theme) => {
    if (theme) document.documentElement.dataset.theme = theme; else delete document.documentElement.dataset.theme;
    button.textContent = `Theme: ${theme || "automatic"}`;
  };
  let theme = "";
  try { theme = localStorage.getItem("superweight-theme") ?? ""; } catch { /* a page from disk may have no storage */ }
  show(themes.includes(theme) ? theme : "");
  button.addEventListener("click", () => {
    theme = themes[(themes.indexOf(theme) + 1) % themes.length];
    show(theme);
    try { localStorage.setItem("superweight-theme", theme); } catch { /* as above */ }
  });

  // Saving a picture: colours as they are shown, the finding on top.
  const save = (name, blob) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  };
  const standalone = (figure) => {
    const source = one("svg.picture", figure);
    const style = getComputedStyle(document.documentElement);
    const text = new XMLSerializer().serializeToString(source).replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim());
    const inner = new DOMParser().parseFromString(text, "image/svg+xml").documentElement;
    const [width, height] = [source.viewBox.baseVal.width, source.viewBox.baseVal.height];
    const lines = wrapped(one("h3", figure).textContent, Math.max(30, Math.floor(width / 7.6)));
    const head = 14 + 20 * lines.length;
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const make = (name, attributes, content = "") => {
      const element = document.createElementNS("http://www.w3.org/2000/svg", name);
      for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
      element.textContent = content;
      svg.append(element);
    };
    const size = { width: width + 20, height: height + head + 10 };
    for (const [key, value] of Object.entries({ ...size, viewBox: `0 0 ${size.width} ${size.height}` })) svg.setAttribute(key, value);
    svg.setAttribute("font-family", "Liberation Sans, Arial, Helvetica, sans-serif");
    make("rect", { width: "100%", height: "100%", fill: style.getPropertyValue("--bg").trim() });
    lines.forEach((line, at) => make("text", { x: 12, y: 24 + 20 * at, "font-size": 15, "font-weight": "bold", fill: style.getPropertyValue("--fg").trim() }, line));
    for (const [key, value] of Object.entries({ x: 10, y: head, width, height })) inner.setAttribute(key, value);
    svg.append(inner);
    return { text: new XMLSerializer().serializeToString(svg), ...size };
  };
  const wrapped = (text, most) => text.split(" ").reduce((lines, word) => {
    const last = lines.at(-1);
    if (last !== undefined && last.length + word.length < most) lines[lines.length - 1] = `${last} ${word}`; else lines.push(word);
    return lines;
  }, []);
  const png = ({ text, width, height }, done) => {
    const image = new Image();
    image.onload = () => {
      const canvas = Object.assign(document.createElement("canvas"), { width: 2 * width, height: 2 * height });
      const context = canvas.getContext("2d");
      context.scale(2, 2);
      context.drawImage(image, 0, 0);
      canvas.toBlob(done, "image/png");
    };
    image.src = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  };
  const csv = (table) => all("tr", table)
    .map((row) => [...row.cells].map((cell) => `"${cell.textContent.replaceAll('"', '""')}"`).join(",")).join("\r\n");
  for (const figure of all("figure.figure")) {
    const name = figure.dataset.name.replace(/[^\w.-]+/g, "_");
    figure.addEventListener("click", (event) => {
      const kind = event.target.dataset?.save;
      if (kind === "svg") save(`${name}.svg`, new Blob([standalone(figure).text], { type: "image/svg+xml" }));
      if (kind === "png") png(standalone(figure), (blob) => save(`${name}.png`, blob));
      if (kind === "csv") save(`${name}.csv`, new Blob([csv(one("table", figure))], { type: "text/csv" }));
    });
  }
})();
