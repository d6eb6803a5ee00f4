// Who leads, who is fresh, where the log stands.

import { chip, make, number } from "./dom.js";

export function health(status) {
  if (!status) return ["bad", "no answer", "This server does not answer. Trying again."];
  const servers = status.servers;
  const lost = servers.filter((one) => one.state === "unreachable").map((one) => one.name);
  const fresh = servers.filter((one) => one.fresh).length;
  if (!status.leader) return ["bad", "no leader", "No leader: nothing can be registered or changed."];
  if (lost.length) {
    const left = Math.floor((servers.length - 1) / 2) - lost.length;
    const more = left > 0 ? `${left} more may fail` : "no other may fail";
    return ["warn", "degraded", `${lost.join(", ")} not reached; ${more}.`];
  }
  if (fresh < servers.length) {
    return ["warn", "degraded", `${fresh} of ${servers.length} servers answer with authority.`];
  }
  if (status.restoring) return ["warn", "restoring", "A backup is being restored."];
  const all = servers.length > 1 ? `All ${servers.length} servers answer` : "The server answers";
  return ["good", "well", `${all} with authority.`];
}

export function show(status) {
  const [, title, sentence] = health(status);
  const parts = [make("h1", {}, sentence)];
  if (!status) return parts;
  const id = status.cluster_id ? status.cluster_id.slice(0, 12) : "–";
  parts.push(
    make("p", { class: "soft" }, `Cluster ${id}, term ${status.term}, ${title}.`),
    figures([
      ["peers", status.peers],
      ["mappings", status.mappings],
      ["revoked", status.revoked],
      ["agents reached", reached(status)],
    ]),
    make("h2", {}, "Servers"),
    make("div", { class: "servers" }, status.servers.map((one) => card(one, status))),
  );
  return parts;
}

function reached(status) {
  const counts = status.servers.map((one) => one.reachable_agents).filter((one) => one !== null);
  return counts.length ? Math.max(...counts) : null;
}

function figures(pairs) {
  const cells = pairs.map(([name, value]) =>
    make("div", {}, make("b", {}, number(value)), make("span", { class: "soft" }, name)),
  );
  return make("div", { class: "figures" }, cells);
}

function card(server, status) {
  const newest = Math.max(0, ...status.servers.map((one) => one.applied ?? 0));
  const behind = server.applied === null ? null : newest - server.applied;
  const kind = { leader: "good", follower: "", candidate: "warn", unreachable: "bad" };
  const fresh = server.fresh === null ? "–" : server.fresh ? "yes" : "no";
  const pairs = [
    ["answers with authority", fresh],
    ["log position", number(server.applied)],
    ["behind", behind === null ? "–" : number(behind)],
    ["agents reached", number(server.reachable_agents)],
    ["release", server.release ?? "–"],
  ];
  const bar = make("i");
  bar.style.width = server.applied === null ? "0" : `${Math.max(2, 100 - Math.log2(1 + behind) * 8)}%`;
  return make(
    "section",
    { class: `card server ${server.state}`, "data-server": server.name },
    make("h3", {}, server.name, chip(server.state, kind[server.state] ?? "")),
    make("dl", {}, pairs.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])),
    make("div", { class: "lag", title: "log position against the newest" }, bar),
  );
}
