// Draws the matrix of preferences with Plotly; a cell opens its pair. Colours follow the stylesheet.
(() => {
  "use strict";
  const place = document.getElementById("matrix");
  const data = JSON.parse(document.getElementById("matrix-figure").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const size = data.labels.length;

  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  const draw = () => {
    const narrow = place.clientWidth < 700;
    const indices = data.labels.map((_, at) => at);
    const side = narrow ? place.clientWidth : Math.min(place.clientWidth - 280, 860);
    window.Plotly.react(
      place,
      [{
        type: "heatmap",
        x: indices, y: indices, z: data.z.map((row) => row.map(() => 0)),
        xgap: size > 60 ? 1 : 2, ygap: size > 60 ? 1 : 2,
        colorscale: [[0, colour("--matrix-none")], [1, colour("--matrix-none")]],
        showscale: false, hoverinfo: "skip",
      }, {
        type: "heatmap",
        x: indices, y: indices, z: data.z,
        zmin: 0, zmax: 1,
        xgap: size > 60 ? 1 : 2, ygap: size > 60 ? 1 : 2,
        colorscale: [[0, colour("--b")], [0.5, colour("--matrix-middle")], [1, colour("--a")]],
        showscale: false,
        hoverongaps: false,
        customdata: data.z.map((row, y) => row.map((_, x) => [data.labels[y], data.labels[x]])),
        hovertemplate: `%{customdata[0]}<br>${data.over} %{customdata[1]}<br>%{z:.2f}<extra></extra>`,
      }],
      {
        height: side + 24,
        margin: { t: 4, r: 4, b: 20, l: narrow ? 4 : 280 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        font: { color: colour("--grey"), size: 12, family: "system-ui, sans-serif" },
        hoverlabel: { bgcolor: colour("--card"), bordercolor: colour("--line"), font: { color: colour("--ink") }, align: "left" },
        xaxis: { ticks: "", showticklabels: false, showgrid: false, zeroline: false, fixedrange: true, constrain: "domain" },
        yaxis: {
          autorange: "reversed", ticks: "", showgrid: false, zeroline: false, fixedrange: true,
          showticklabels: !narrow, tickvals: indices, ticktext: data.labels,
          tickfont: { size: size > 60 ? 8 : 11 },
        },
      },
      { displayModeBar: false, responsive: true },
    );
  };

  draw();
  place.on("plotly_click", (event) => {
    const { x, y } = event.points[event.points.length - 1];
    const pair = data.pairs[y][x];
    if (pair !== null) window.location.assign(data.address.replace(/\/0\/$/, `/${pair}/`));
  });
  dark.addEventListener("change", draw);
  let waiting = 0;
  window.addEventListener("resize", () => { window.clearTimeout(waiting); waiting = window.setTimeout(draw, 150); });
})();
