// What happened: faults and changes, the newest first.

import { clock } from "./charts.js";
import { make } from "./dom.js";

const KINDS = {
  leader: "good",
  reachable: "good",
  enrolled: "good",
  "no leader": "bad",
  unreachable: "bad",
  revoked: "bad",
  expired: "warn",
  withdrawn: "warn",
  "server removed": "warn",
};
// These come with every agent that starts or moves; the others tell of faults and of operators.
export const ROUTINE = new Set(["registered", "withdrawn", "expired"]);

export function show(events, most) {
  if (!events.length) return make("div", { class: "sheet empty" }, "Nothing has happened yet.");
  const items = events.slice(-most).reverse().map(item);
  return make("div", { class: "sheet" }, make("ol", { class: "timeline" }, items));
}

function item(event) {
  return make(
    "li",
    { class: KINDS[event.event] ?? "", "data-event": event.event },
    make("time", { datetime: event.time }, clock(event.time)),
    make("span", { class: "what" }, event.event),
    make("span", { class: "detail" }, make("b", {}, event.subject), event.detail ? ` ${event.detail}` : ""),
  );
}
