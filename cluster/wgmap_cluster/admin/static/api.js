// Asking the server that this page came from. A token, where one is wanted, stays in this tab.

const KEPT = "wgmap-token";

export class Problem extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

let signIn = async () => false;

export function onSignIn(callback) {
  signIn = callback;
}

export function keep(token) {
  sessionStorage.setItem(KEPT, token);
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const token = sessionStorage.getItem(KEPT);
  if (token) headers.Authorization = `Bearer ${token}`;
  let response;
  try {
    response = await fetch(path, { ...options, headers, cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "this server does not answer");
  }
  if (response.status === 401 && response.headers.has("WWW-Authenticate")) {
    if (await signIn()) return ask(path, options);
  }
  if (!response.ok) throw await problem(response);
  return response;
}

async function problem(response) {
  const text = await response.text();
  try {
    return new Problem(response.status, JSON.parse(text).detail);
  } catch {
    return new Problem(response.status, text.trim() || response.statusText);
  }
}

export async function get(path, options) {
  return (await ask(path, options)).json();
}

export async function post(path, body = {}) {
  const headers = { "Content-Type": "application/json" };
  return (await ask(path, { method: "POST", headers, body: JSON.stringify(body) })).json();
}

// One page of a list: its rows, how many there are, and where the next page is (or null).
export async function page(path, options) {
  const response = await ask(path, options);
  const link = /<([^>]+)>; rel="next"/.exec(response.headers.get("Link") ?? "");
  return {
    rows: await response.json(),
    total: Number(response.headers.get("Total-Count")),
    next: link ? link[1] : null,
  };
}

export async function recent() {
  const text = await (await ask("/v1/events")).text();
  return text.split("\n").filter(Boolean).map((line) => JSON.parse(line));
}

// Follow what happens until the tab is closed; after a break it begins again.
export async function follow(each, connected) {
  for (;;) {
    try {
      const reader = (await ask("/v1/events?follow=1")).body.getReader();
      connected(true);
      await lines(reader, (line) => each(JSON.parse(line)));
    } catch {
      // it is begun again below
    }
    connected(false);
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
}

async function lines(reader, each) {
  const decoder = new TextDecoder();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const parts = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = parts.pop();
    parts.filter(Boolean).forEach(each);
  }
}
