"use strict";
(() => {
  const specs = JSON.parse(document.getElementById("figures").textContent);
  const narrow = window.matchMedia("(max-width: 700px)");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const quiet = { displayModeBar: false, displaylogo: false, responsive: true, scrollZoom: false, doubleClick: false };

  const scales = () => ({
    // lightness runs one way, so that they survive without colour
    $sequential: dark.matches
      ? [[0, "#ffe9a8"], [0.35, "#e0a33e"], [0.7, "#8f5aa8"], [1, "#3b3f78"]]
      : [[0, "#1d2a6b"], [0.35, "#6a4c93"], [0.7, "#d98b4a"], [1, "#fbe3a1"]],
    $diverging: dark.matches
      ? [[0, "#ff9e6d"], [0.5, "#14171b"], [1, "#8ab4ff"]]
      : [[0, "#8f2d00"], [0.5, "#ffffff"], [1, "#0b3d91"]],
  });

  function themed(value, named) {
    if (typeof value === "string" && value.startsWith("$")) {
      if (!(value in named)) {
        named[value] = getComputedStyle(document.documentElement).getPropertyValue(`--${value.slice(1)}`).trim();
      }
      return named[value];
    }
    if (Array.isArray(value)) return typeof value[0] === "number" ? value.slice() : value.map((v) => themed(v, named));
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([key, v]) => [key, themed(v, named)]));
    }
    return value;
  }

  function fitted(spec) {
    const { data, layout, height, room } = themed(spec, scales());
    layout.height = height;
    if (narrow.matches) {
      layout.annotations = (layout.annotations || []).filter((note) => note.name !== "label");
      layout.font.size = 12;
      if (spec.narrow) {
        data[0].z = spec.narrow.z;
        data[0].colorbar.orientation = "h";
        data[0].colorbar.title.side = "bottom";
        layout.shapes = themed(spec.narrow.shapes, {});
        layout.height = spec.narrow.height + 70;
      } else layout.height = Math.min(height, Math.max(320, height - 60));
    } else {
      layout.margin.r = room;
    }
    return { data, layout };
  }

  function draw(box) {
    const { data, layout } = fitted(specs[box.dataset.figure]);
    Plotly.purge(box); // Plotly.react leaves ticks of a colour bar behind that lay the other way
    return Plotly.newPlot(box, data, layout, quiet);
  }

  // arrow keys walk through the points of a figure and say each
  function walk(box) {
    const said = box.parentElement.querySelector(".said");
    const points = [];
    specs[box.dataset.figure].data.forEach((trace, curve) => {
      if (trace.type === "scatter" && trace.hoverinfo !== "skip") trace.x.forEach((_, point) => points.push([curve, point]));
    });
    let at = -1;
    box.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step || !points.length) return;
      event.preventDefault();
      at = (at + step + points.length) % points.length;
      const [curveNumber, pointNumber] = points[at];
      const trace = specs[box.dataset.figure].data[curveNumber];
      Plotly.Fx.hover(box, [{ curveNumber, pointNumber }]);
      const name = trace.hovertemplate.startsWith("%{text}") ? trace.text[pointNumber] : trace.name + trace.text[pointNumber];
      const number = (value) => Number(value.toPrecision(5));
      said.textContent = trace.hovertemplate.startsWith("%{text}")
        ? `${name}: ${number(trace.x[pointNumber])}`
        : `${name}: ${number(trace.y[pointNumber])} at ${number(trace.x[pointNumber])}`;
    });
    box.addEventListener("blur", () => { Plotly.Fx.unhover(box); said.textContent = ""; at = -1; });
  }

  function sortable(table) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      head.querySelector("button").addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") === "ascending";
        for (const other of table.tHead.rows[0].cells) other.setAttribute("aria-sort", "none");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const compare = (a, b) => {
          const [x, y] = [value(a), value(b)];
          if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last
          const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
          return falling ? -order : order;
        };
        body.append(...[...body.rows].sort(compare));
      });
    });
  }

  const boxes = [...document.querySelectorAll(".plot")];
  const redraw = () => boxes.forEach(draw);
  document.querySelectorAll("table.sortable").forEach(sortable);
  Promise.all(boxes.map(draw)).then(() => {
    boxes.forEach(walk);
    narrow.addEventListener("change", redraw);
    dark.addEventListener("change", redraw);
    document.documentElement.dataset.drawn = String(boxes.length);
  });
})();
