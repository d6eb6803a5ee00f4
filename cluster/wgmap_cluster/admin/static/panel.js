// One peer in full, and the way to revoke it.

import { get, post } from "./api.js";
import { ago, facts, make } from "./dom.js";
import { rowOf } from "./rows.js";
import { endpoints, stateChip, stateOf } from "./tables.js";

const panel = document.getElementById("panel");
const dialog = document.getElementById("dialog");
let shown = null;
let before = null;

let contacts = () => {};

// What shows the contacts of a peer.
export function onContacts(callback) {
  contacts = callback;
}

export function close() {
  if (panel.hidden) return false;
  panel.hidden = true;
  shown = null;
  (before?.isConnected ? before : rowOf(before?.dataset.key))?.focus();
  return true;
}

export async function open(name) {
  before = document.activeElement;
  await show(name);
  if (shown === name) panel.querySelector("button").focus();
}

// Show a peer anew where it is the one that is shown: it was changed.
export async function changed(name) {
  if (shown === name) await show(name);
}

async function show(name) {
  shown = name;
  const parts = await get(`/v1/peers/${encodeURIComponent(name)}`).then(content, (error) => failed(name, error));
  if (shown !== name) return; // it was shut meanwhile, or shows another one
  panel.replaceChildren(...parts);
  panel.hidden = false;
}

function failed(name, error) {
  return [top(name, null), make("p", { class: "said bad" }, error.message)];
}

function top(name, state) {
  const shut = make("button", { class: "quiet", type: "button", "aria-label": "Close (Esc)", onclick: close }, "✕");
  return make("div", { class: "top" }, make("div", {}, make("h1", {}, name), state), shut);
}

function content(peer) {
  const mono = (text) => (text ? make("span", { class: "mono" }, text) : null);
  const pairs = [
    ["seen", ago(peer.last_seen_s)],
    ["instance", String(peer.instance)],
    ["prefixes", mono(peer.prefixes.join(" "))],
    ["control address", mono(peer.control_address)],
    ["control key", mono(peer.control_key)],
    ["endpoints allowed", mono(peer.endpoint_allow.join(" "))],
    ["revision", String(peer.revision)],
  ];
  if (peer.revocation !== null) pairs.push(["revocation", String(peer.revocation)]);
  const parts = [top(peer.name, stateChip(peer)), facts(pairs), make("h2", {}, "Mappings"), ...mappings(peer, mono)];
  if (!peer.revoked) {
    const ask = () => confirm(peer);
    const talks = make("button", { type: "button", id: "contacts", onclick: () => contacts(peer.name) }, "Contacts");
    const button = make("button", { class: "danger", type: "button", id: "revoke", onclick: ask }, "Revoke…");
    parts.push(make("div", { class: "actions" }, talks, button));
  }
  return parts;
}

function mappings(peer, mono) {
  if (!peer.mappings.length) return [make("p", { class: "soft" }, stateOf(peer) === "revoked" ? "None: it is shut out." : "None: its agent is not registered.")];
  return peer.mappings.map((one) =>
    make("div", { class: "card" }, facts([["prefix", mono(one.prefix)], ["endpoints", mono(endpoints(one.locators).join(" "))], ["key", mono(one.key)], ["version", String(one.version)]])),
  );
}

// Revoking is for good: the peer's name must be written once more.
function confirm(peer) {
  const input = make("input", { id: "sure", autocomplete: "off", spellcheck: "false", "aria-label": "Name of the peer" });
  const button = make("button", { class: "danger sure", disabled: true }, "Revoke");
  const said = make("div", { role: "status" });
  input.addEventListener("input", () => (button.disabled = input.value !== peer.name));
  const form = make(
    "form",
    { onsubmit: (event) => revoke(event, peer, button, said) },
    make("h1", {}, `Revoke ${peer.name}?`),
    make("p", { class: "soft" }, "It loses its tunnels within a second, everywhere and for good: its name, key and address stay reserved."),
    make("label", {}, "Write its name to go on", input),
    said,
    make("div", { class: "actions" }, make("button", { type: "button", onclick: () => dialog.close() }, "Cancel"), button),
  );
  dialog.replaceChildren(form);
  dialog.showModal();
  input.focus();
}

async function revoke(event, peer, button, said) {
  event.preventDefault();
  button.disabled = true;
  try {
    const done = await post(`/v1/peers/${encodeURIComponent(peer.name)}/revoke`);
    const missing = done.unconfirmed.length ? `; not yet confirmed by ${done.unconfirmed.join(", ")}` : "";
    const kind = missing ? "warn" : "good";
    said.replaceChildren(make("p", { class: `said ${kind}` }, `Revoked: confirmed by ${done.confirmed.join(", ")}${missing}.`));
    button.replaceWith(make("button", { type: "button", onclick: () => dialog.close() }, "Done"));
    changed(peer.name);
  } catch (error) {
    said.replaceChildren(make("p", { class: "said bad" }, error.message));
    button.disabled = false;
  }
}
