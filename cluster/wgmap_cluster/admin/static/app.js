// The page as a whole: which view is shown, what is asked again and when, and the keyboard.

import * as api from "./api.js";
import * as charts from "./charts.js";
import * as cluster from "./cluster.js";
import { Contacts } from "./contacts.js";
import { make } from "./dom.js";
import * as panel from "./panel.js";
import { List } from "./tables.js";
import * as timeline from "./timeline.js";

const STATUS_MS = 1000;
const HISTORY_MS = 5000;
const CALM_MS = 400; // so long after an event the list is asked for anew: they come in swarms
const MOST = 1000; // events that are kept
const HOUR_MS = 3_600_000; // of samples
const CHANGES_ROWS = new Set(["enrolled", "changed", "revoked", "registered", "withdrawn", "expired", "snapshot", "restored"]);

const view = document.getElementById("view");
const chip = document.getElementById("health");
const dialog = document.getElementById("dialog");
const VIEWS = ["cluster", "peers", "mappings", "contacts", "activity"];
const lists = {
  peers: new List("peers", panel.open),
  mappings: new List("mappings", panel.open),
  contacts: new Contacts(panel.open),
};
const known = { status: null, samples: [], events: [] };

let drawn = "";

function now() {
  const name = location.hash.slice(1);
  return VIEWS.includes(name) ? name : "cluster";
}

function render() {
  for (const link of document.querySelectorAll("nav a")) {
    if (link.dataset.view === now()) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (lists[now()]) view.replaceChildren(...lists[now()].show());
  drawn = "";
  refresh();
}

// Draw what is not a list: it keeps no focus and no place, so it is drawn anew each time.
function refresh() {
  const seen = JSON.stringify([now(), known.status, known.samples.at(-1), known.events.length]);
  if (seen === drawn) return;
  drawn = seen;
  const [kind, word] = cluster.health(known.status);
  chip.className = `chip ${kind}`;
  chip.textContent = word;
  if (now() === "cluster") {
    const telling = known.events.filter((event) => !timeline.ROUTINE.has(event.event));
    view.replaceChildren(
      ...cluster.show(known.status),
      make("h2", {}, "Faults and changes"),
      timeline.show(telling, 6),
      make("h2", {}, "This server, the last hour"),
      charts.show(known.samples),
    );
  }
  if (now() === "activity") {
    view.replaceChildren(
      make("h1", {}, "Activity"),
      make("h2", {}, "This server, the last hour"),
      charts.show(known.samples),
      make("h2", {}, "All that happened, as this server applied it"),
      timeline.show(known.events, 200),
    );
  }
}

async function keepAsking(ask, everyMs) {
  for (;;) {
    await ask();
    refresh();
    await new Promise((resolve) => setTimeout(resolve, everyMs));
  }
}

async function askStatus() {
  known.status = await api.get("/v1/status").catch(() => null);
}

// What is there is kept; only what came since is asked for. Where that is all again, the host was booted.
async function askHistory() {
  const last = known.samples.at(-1);
  const more = await api.get(`/v1/history${last ? `?after=${last.number}` : ""}`).catch(() => []);
  if (!more.length) return;
  const kept = last && more[0].number > last.number ? known.samples : [];
  const from = Date.parse(more.at(-1).time) - HOUR_MS;
  known.samples = [...kept, ...more].filter((one) => Date.parse(one.time) >= from);
}

let calm = null;

function happened(event) {
  known.events.push(event);
  if (known.events.length > MOST) known.events.shift();
  if (CHANGES_ROWS.has(event.event)) {
    clearTimeout(calm);
    calm = setTimeout(() => {
      panel.changed(event.subject);
      // A list that somebody has scrolled through keeps its place; its next look is up to date.
      if (lists[now()] && window.scrollY < 200) lists[now()].load();
    }, CALM_MS);
  }
  refresh();
}

async function follow() {
  await api.follow(happened, async (connected) => {
    if (connected) known.events = await api.recent().catch(() => []);
    refresh();
  });
}

// ------------------------------------------------------------------------------------- token

let asking = null;

function signIn() {
  asking ??= new Promise((resolve) => {
    const input = make("input", { type: "password", id: "token", autocomplete: "off", "aria-label": "Token" });
    const form = make(
      "form",
      { onsubmit: (event) => { event.preventDefault(); api.keep(input.value.trim()); dialog.close(); resolve(true); } },
      make("h1", {}, "Token"),
      make("p", { class: "soft" }, "This server wants a bearer token (wgmap token make). It is kept in this tab alone."),
      input,
      make("div", { class: "actions" }, make("button", {}, "Sign in")),
    );
    dialog.replaceChildren(form);
    dialog.showModal();
  }).finally(() => (asking = null));
  return asking;
}

// ---------------------------------------------------------------------------------- keyboard

const KEYS = [
  ["1 2 3 4 5", "Cluster, Peers, Mappings, Contacts, Activity"],
  ["/", "search"],
  ["j k, arrows", "next and previous row"],
  ["Enter", "open a row"],
  ["Esc", "close"],
  ["t", "light or dark"],
  ["?", "this"],
];

function help() {
  const rows = KEYS.flatMap(([keys, what]) => [make("dt", {}, make("kbd", {}, keys)), make("dd", {}, what)]);
  const done = make("button", {}, "Close");
  dialog.replaceChildren(make("form", { method: "dialog" }, make("h1", {}, "Keys"), make("dl", { class: "facts" }, rows), make("div", { class: "actions" }, done)));
  dialog.showModal();
}

function pressed(event) {
  if (event.key === "Escape" && !dialog.open && panel.close()) return;
  if (event.ctrlKey || event.metaKey || event.altKey || dialog.open || event.target.closest("input")) return;
  if (VIEWS[event.key - 1]) location.hash = VIEWS[event.key - 1];
  else if (event.key === "t") theme();
  else if (event.key === "?") help();
  else if (event.key === "/") search();
  else return;
  event.preventDefault();
}

function search() {
  if (!lists[now()]) location.hash = "peers";
  setTimeout(() => lists[now()]?.input.focus());
}

function theme() {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const shown = document.documentElement.dataset.theme ?? (dark ? "dark" : "light");
  document.documentElement.dataset.theme = shown === "dark" ? "light" : "dark";
  localStorage.setItem("wgmap-theme", document.documentElement.dataset.theme);
}

const kept = localStorage.getItem("wgmap-theme");
if (kept === "dark" || kept === "light") document.documentElement.dataset.theme = kept;
document.getElementById("theme").addEventListener("click", theme);
document.addEventListener("keydown", pressed);
window.addEventListener("hashchange", () => { panel.close(); render(); view.focus({ preventScroll: true }); window.scrollTo(0, 0); });
panel.onContacts((name) => { location.hash = "contacts"; panel.close(); lists.contacts.around(name); });
api.onSignIn(signIn);
render();
keepAsking(askStatus, STATUS_MS);
keepAsking(askHistory, HISTORY_MS);
follow();
