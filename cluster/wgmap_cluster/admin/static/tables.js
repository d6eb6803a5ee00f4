// Peers and mappings: the server searches, and gives a page at a time.

import { page } from "./api.js";
import { ago, chip, column, make, number } from "./dom.js";
import { redrawn, walked } from "./rows.js";

const LIMIT = 60;
const WAIT_MS = 200; // after the last key, before the server is asked

const STATES = ["", "registered", "enrolled", "revoked"];

export function stateOf(peer) {
  return peer.revoked ? "revoked" : peer.registered ? "registered" : "enrolled";
}

export function stateChip(peer) {
  const state = stateOf(peer);
  return chip(state, { registered: "good", revoked: "bad" }[state] ?? "warn");
}

export function endpoints(locators) {
  return locators.map((one) => (one.address.includes(":") ? `[${one.address}]:${one.port}` : `${one.address}:${one.port}`));
}

const KINDS = {
  peers: {
    path: "/v1/peers",
    what: "peers",
    hint: "Search by name, address, prefix or key",
    head: ["Name", "State", "Prefixes", "Seen"],
    key: (row) => row.name,
    cells: (row) => [row.name, stateChip(row), mono(row.prefixes.join(" ")), ago(row.last_seen_s)],
    peer: (row) => row.name,
    states: true,
  },
  mappings: {
    path: "/v1/mappings",
    what: "mappings",
    hint: "Search by peer, address, prefix, endpoint or key",
    head: ["Prefix", "Peer", "Endpoints", "Version"],
    key: (row) => `${row.instance},${row.prefix}`,
    cells: (row) => [mono(row.prefix), row.peer, mono(endpoints(row.locators).join(" ")), row.version],
    peer: (row) => row.peer,
  },
};

function mono(text) {
  return make("span", { class: "mono" }, text);
}

// A list of one kind; ``open`` is called with the name of the peer of a chosen row.
export class List {
  constructor(name, open) {
    this.kind = KINDS[name];
    this.open = open;
    this.state = "";
    this.rows = [];
    this.next = null;
    this.asked = null;
    this.input = make("input", {
      type: "search",
      placeholder: `${this.kind.hint}  ( / )`,
      "aria-label": this.kind.hint,
      autocomplete: "off",
      spellcheck: "false",
      oninput: () => this.soon(),
    });
    this.count = make("span", { class: "soft", role: "status", id: "count" });
    this.body = make("tbody");
    this.table = make("table", {}, make("thead", {}, make("tr", {}, this.kind.head.map(column))), this.body);
    walked(this.input, this.table, this.body);
    this.foot = make("div");
    this.watcher = new IntersectionObserver((seen) => seen.some((one) => one.isIntersecting) && this.more());
  }

  show() {
    const tools = make("div", { class: "tools" }, make("label", {}, this.input), this.states(), this.count);
    this.load();
    return [make("h1", {}, this.kind.what[0].toUpperCase() + this.kind.what.slice(1)), tools, make("div", { class: "sheet" }, this.table, this.foot)];
  }

  states() {
    if (!this.kind.states) return null;
    const buttons = STATES.map((state) =>
      make("button", { type: "button", "aria-pressed": String(state === this.state), onclick: (event) => this.choose(event, state) }, state || "all"),
    );
    return make("div", { class: "segments", role: "group", "aria-label": "State" }, buttons);
  }

  choose(event, state) {
    this.state = state;
    for (const button of event.target.parentElement.children) button.setAttribute("aria-pressed", String(button === event.target));
    this.load();
  }

  soon() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.load(), WAIT_MS);
  }

  // Load the first page anew; with ``quietly`` what is shown stays until the answer is there.
  async load() {
    const query = new URLSearchParams({ limit: LIMIT });
    if (this.input.value.trim()) query.set("search", this.input.value.trim());
    if (this.state) query.set("state", this.state);
    const loaded = await this.ask(`${this.kind.path}?${query}`);
    if (!loaded) return;
    this.rows = [];
    redrawn(this.body, () => {
      this.body.replaceChildren();
      this.add(loaded);
    });
  }

  async more() {
    if (!this.next) return;
    const path = this.next;
    this.next = null;
    const loaded = await this.ask(path);
    if (loaded) this.add(loaded);
  }

  // The answer to the last question, or null where another was asked meanwhile.
  async ask(path) {
    this.asked?.abort();
    const asked = (this.asked = new AbortController());
    try {
      return await page(path, { signal: asked.signal });
    } catch (error) {
      if (error.name !== "AbortError" && asked === this.asked) {
        this.foot.replaceChildren(make("div", { class: "empty" }, error.message));
      }
      return null;
    }
  }

  add({ rows, total, next }) {
    this.next = next;
    this.rows.push(...rows);
    this.body.append(...rows.map((row) => this.row(row)));
    this.count.textContent = `${number(total)} ${total === 1 ? this.kind.what.slice(0, -1) : this.kind.what}`;
    this.watcher.disconnect();
    this.foot.replaceChildren();
    if (!this.rows.length) this.foot.append(make("div", { class: "empty" }, `No ${this.kind.what} like that.`));
    if (next) {
      this.foot.append(make("button", { class: "more", type: "button", onclick: () => this.more() }, "more"));
      this.watcher.observe(this.foot);
    }
  }

  row(row) {
    const cells = this.kind.cells(row).map((cell, index) =>
      make("td", { "data-label": index > 1 ? this.kind.head[index] : null }, cell),
    );
    const open = () => this.open(this.kind.peer(row));
    return make(
      "tr",
      { tabindex: 0, "data-key": this.kind.key(row), onclick: open, onkeydown: (event) => event.key === "Enter" && open() },
      cells,
    );
  }
}
