// Lines over time, drawn from the samples of /v1/history.

import { draw, make, number, took } from "./dom.js";

const WIDTH = 400;
const HEIGHT = 100;
const POINTS = 120; // drawn at most: more is noise at this size

const CHARTS = [
  { title: "Lookup, p99 and p50", unit: took, names: ["lookup_p99_s", "lookup_p50_s"] },
  {
    title: "First contact, p99 and p50",
    means: "From the answer to a question about a peer to that peer's acknowledgement that it was told who asked; the tunnel's handshake is not in it",
    unit: took,
    names: ["introduction_p99_s", "introduction_p50_s"],
  },
  { title: "Disk sync, p99", unit: took, names: ["sync_p99_s"] },
  { title: "Lookups a second", unit: number, names: ["lookups_per_s"] },
  {
    title: "Peers told a second, and unheard",
    means: "Peers that acknowledged that they were told who asked for them, and peers that never did",
    unit: number,
    names: ["introductions_per_s", "introductions_unheard_per_s"],
  },
  { title: "Registers a second", unit: number, names: ["registers_per_s"] },
];

export function show(samples) {
  const drawn = thinned(samples);
  return make("div", { class: "charts" }, CHARTS.map((chart) => figure(chart, drawn)));
}

// Of each run of samples: the worst latency, the mean rate; null where nothing was timed.
function thinned(samples) {
  const run = Math.ceil(samples.length / POINTS) || 1;
  const points = [];
  for (let from = 0; from < samples.length; from += run) {
    const piece = samples.slice(from, from + run);
    const point = { time: piece[0].time };
    for (const name of Object.keys(piece[0]).filter((name) => !["time", "number"].includes(name))) {
      const values = piece.map((one) => one[name]).filter((value) => value !== null);
      const sum = values.reduce((total, value) => total + value, 0);
      point[name] = !values.length ? null : name.endsWith("per_s") ? sum / values.length : Math.max(...values);
    }
    points.push(point);
  }
  return points;
}

function figure(chart, samples) {
  const most = Math.max(0, ...samples.flatMap((one) => chart.names.map((name) => one[name] ?? 0)));
  const latest = samples.length ? samples[samples.length - 1][chart.names[0]] : null;
  const picture = draw("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
    preserveAspectRatio: "none",
    role: "img",
    "aria-label": `${chart.title}, now ${chart.unit(latest)}${chart.means ? `. ${chart.means}` : ""}`,
  });
  for (const y of [0, HEIGHT / 2, HEIGHT]) {
    picture.append(draw("line", { class: "grid", x1: 0, x2: WIDTH, y1: y, y2: y }));
  }
  chart.names.forEach((name, index) => {
    const points = line(samples, name, most);
    if (!index) picture.append(draw("path", { class: "area", d: area(points) }));
    picture.append(draw("path", { class: index ? "line second" : "line", d: path(points) }));
    if (!index) picture.append(draw("path", { class: "dots", d: dots(points) }));
  });
  const from = samples.length ? clock(samples[0].time) : "";
  return make(
    "section",
    { class: "card chart", "data-chart": chart.names[0], title: chart.means },
    make("h3", {}, chart.title, make("span", { class: "soft" }, chart.unit(latest))),
    picture,
    make("footer", {}, make("span", {}, from), make("span", {}, says(chart, most))),
  );
}

function says(chart, most) {
  return most ? `top ${chart.unit(most)}` : "nothing yet";
}

function line(samples, name, most) {
  const step = WIDTH / Math.max(1, samples.length - 1);
  const at = (value) => (value === null ? null : HEIGHT - (HEIGHT * value) / (most || 1));
  return samples.map((one, index) => [index * step, at(one[name])]);
}

// Points without a value are a gap in the line.
function path(points) {
  let pen = "M";
  let drawn = "";
  for (const [x, y] of points) {
    if (y !== null) drawn += `${pen}${x.toFixed(1)} ${y.toFixed(1)}`;
    pen = y === null ? "M" : "L";
  }
  return drawn;
}

// What stands alone between gaps is no line.
function dots(points) {
  const nothing = (at) => (points[at]?.[1] ?? null) === null;
  return points
    .filter(([, y], at) => y !== null && nothing(at - 1) && nothing(at + 1))
    .map(([x, y]) => `M${x.toFixed(1)} ${y.toFixed(1)}h0`)
    .join("");
}

function area(points) {
  if (!points.length) return "";
  const filled = points.map(([x, y]) => `L${x.toFixed(1)} ${(y ?? HEIGHT).toFixed(1)}`).join("");
  return `M0 ${HEIGHT}${filled}L${points[points.length - 1][0].toFixed(1)} ${HEIGHT}Z`;
}

export function clock(time) {
  return new Date(time).toLocaleTimeString([], { hour12: false });
}
