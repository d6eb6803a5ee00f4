// Who talks to whom: a map of the newest contacts, or of those around one peer, and the same as a list.
//
// The servers know whom they told of whom. A line is a pair of peers; it is strong while it is new.

import { get } from "./api.js";
import { ago, chip, column, draw, make } from "./dom.js";
import { redrawn, walked } from "./rows.js";

const LIMIT = 300; // pairs that are asked for
const NODES = 48; // peers that are drawn; the list has the others
const LISTED = 100;
const EVERY_MS = 2000;
const NEW_S = 15;
const SIZE = 640;
const RADIUS = 225;

const STATES = { heard: ["heard", "good"], waiting: ["not acknowledged yet", "warn"], unheard: ["never heard", "bad"] };

export class Contacts {
  constructor(open) {
    this.open = open;
    this.drawn = "";
    this.timer = null;
    this.asked = 0;
    this.input = make("input", {
      type: "search",
      placeholder: "Around one peer: its name  ( / )",
      "aria-label": "Around one peer: its name",
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.soon(),
    });
    this.count = make("span", { class: "soft", role: "status", id: "count" });
    this.picture = make("div", { class: "sheet map" });
    this.said = make("p", { class: "soft", id: "silent" });
    this.body = make("tbody");
    const head = ["Agent", "Was told of", "When", "By"].map(column);
    this.table = make("table", {}, make("thead", {}, make("tr", {}, head)), this.body);
    walked(this.input, this.table, this.body);
  }

  show() {
    this.drawn = "";
    this.load();
    return [
      make("h1", {}, "Contacts"),
      make("div", { class: "tools" }, make("label", {}, this.input), this.count),
      this.picture,
      this.said,
      make("h2", {}, "Who was told of whom"),
      make("div", { class: "sheet" }, this.table),
    ];
  }

  around(name) {
    this.input.value = name;
    this.load();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), 200);
  }

  // Ask, draw, and again while it is to be seen.
  async load() {
    clearTimeout(this.timer);
    const asked = ++this.asked;
    const query = new URLSearchParams({ limit: LIMIT });
    const peer = this.input.value.trim();
    if (peer) query.set("peer", peer);
    try {
      const view = await get(`/v1/contacts?${query}`);
      if (asked === this.asked) this.draw(peer, view);
    } catch (error) {
      this.said.textContent = error.message;
    }
    if (asked !== this.asked) return; // another question has gone out meanwhile
    if (this.picture.isConnected) this.timer = setTimeout(() => this.load(), EVERY_MS);
  }

  draw(peer, view) {
    const pairs = joined(view.contacts);
    this.count.textContent = `${pairs.length} ${pairs.length === 1 ? "pair" : "pairs"} of peers`;
    this.said.textContent = view.silent.length
      ? `Not known: what ${view.silent.join(", ")} alone told.`
      : `As ${view.servers.join(", ")} told them, within the TTL.`;
    const seen = JSON.stringify([peer, view.contacts.map((one) => [one.agent, one.subject, one.told.map((each) => each.state), fresh(one)])]);
    const listed = view.contacts.slice(0, LISTED);
    if (seen !== this.drawn) {
      this.drawn = seen;
      this.picture.replaceChildren(this.map(peer, pairs));
      redrawn(this.body, () => this.body.replaceChildren(...listed.map((one) => this.row(one))));
    }
    listed.forEach((one, index) => (this.body.children[index].children[2].textContent = ago(one.told[0].ago_s)));
  }

  row(one) {
    const [newest] = one.told;
    const [word, kind] = STATES[newest.state];
    const open = () => this.open(one.agent);
    const cells = [one.agent, one.subject, "", make("span", {}, `${one.told.map((each) => each.server).join(", ")} `, chip(word, kind))];
    const labels = [null, "told of", "told", "by"];
    return make(
      "tr",
      { tabindex: 0, "data-key": `${one.agent} ${one.subject}`, onclick: open, onkeydown: (event) => event.key === "Enter" && open() },
      cells.map((cell, index) => make("td", { "data-label": labels[index] }, cell)),
    );
  }

  map(peer, pairs) {
    if (!pairs.length) return make("div", { class: "empty" }, peer ? `Nobody was told of ${peer}, or it of anybody.` : "Nobody was told of anybody yet.");
    const places = placed(peer, pairs);
    const drawn = pairs.filter((pair) => places.has(pair.one) && places.has(pair.other));
    const label = `${drawn.length} pairs of ${places.size} peers that talk, or wanted to`;
    const picture = draw("svg", { viewBox: `0 0 ${SIZE} ${SIZE}`, role: "img", "aria-label": label });
    for (const pair of drawn) picture.append(edge(pair, places.get(pair.one), places.get(pair.other)));
    for (const [name, place] of places) picture.append(this.node(name, place));
    return picture;
  }

  node(name, { x, y, turn }) {
    const left = turn > 90 && turn < 270;
    const text = draw(
      "text",
      { x: turn === null ? 0 : left ? -10 : 10, y: turn === null ? -14 : 4, "text-anchor": turn === null ? "middle" : left ? "end" : "start", transform: turn === null ? "" : `rotate(${left ? turn - 180 : turn})` },
      name.length > 22 ? `${name.slice(0, 21)}…` : name,
    );
    const node = draw("g", { class: "node", transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`, "data-peer": name }, draw("circle", { r: turn === null ? 8 : 5 }), text, draw("title", {}, name));
    node.addEventListener("click", () => this.open(name));
    return node;
  }
}

function fresh(one) {
  return one.told[0].ago_s < NEW_S;
}

// Both directions of a pair are one line: as new as the newer, as bad as the worse.
function joined(contacts) {
  const pairs = new Map();
  const rank = { heard: 0, waiting: 1, unheard: 2 };
  for (const one of contacts) {
    const [a, b] = [one.agent, one.subject].sort();
    const state = one.told.map((each) => each.state).sort((x, y) => rank[x] - rank[y])[0];
    const pair = pairs.get(`${a} ${b}`) ?? { one: a, other: b, ago_s: Infinity, state };
    pair.ago_s = Math.min(pair.ago_s, one.told[0].ago_s);
    if (rank[state] > rank[pair.state]) pair.state = state;
    pairs.set(`${a} ${b}`, pair);
  }
  return [...pairs.values()];
}

// On a circle in the order of names, so that a peer keeps its place; the one that is looked at in the middle.
function placed(peer, pairs) {
  const names = new Set();
  for (const pair of pairs) {
    const more = [pair.one, pair.other].filter((name) => !names.has(name));
    if (names.size + more.length <= NODES) more.forEach((name) => names.add(name));
  }
  const middle = SIZE / 2;
  const round = [...names].filter((name) => name !== peer).sort();
  const places = new Map();
  round.forEach((name, index) => {
    const turn = (360 * index) / round.length;
    const angle = (turn * Math.PI) / 180;
    places.set(name, { x: middle + RADIUS * Math.cos(angle), y: middle + RADIUS * Math.sin(angle), turn });
  });
  if (names.has(peer)) places.set(peer, { x: middle, y: middle, turn: null });
  return places;
}

function edge(pair, from, to) {
  const middle = SIZE / 2;
  const path = `M${from.x.toFixed(1)} ${from.y.toFixed(1)}Q${middle} ${middle} ${to.x.toFixed(1)} ${to.y.toFixed(1)}`;
  const kind = `edge ${pair.state} ${pair.ago_s < NEW_S ? "new" : ""}`;
  const said = `${pair.one} and ${pair.other}, ${ago(pair.ago_s)}, ${STATES[pair.state][0]}`;
  return draw("path", { class: kind, d: path, "data-pair": `${pair.one} ${pair.other}` }, draw("title", {}, said));
}
