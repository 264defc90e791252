"use strict";
// What both pages share. Text from the server goes into the page as text, never as markup.

const byId = (id) => document.getElementById(id);

/** A new element; `fields` are properties of it, `children` elements or text. */
function make(tag, fields = {}, ...children) {
  const element = Object.assign(document.createElement(tag), fields);
  element.append(...children);
  return element;
}

/** The headers of a request, with the key where one was typed in. */
function requestHeaders(type) {
  const headers = type ? { "Content-Type": type } : {};
  const key = byId("key").value.trim();
  if (key) headers.Authorization = `Bearer ${key}`;
  return headers;
}

/** What went wrong, for people, and what a log or a developer would want to know. */
class Failure extends Error {
  constructor(text, details = "") {
    super(text);
    this.details = details;
  }
}

/** Codes of the server in a person's words; where there is none its own message is told. */
const IN_WORDS = {
  overloaded: "The server is busy: all its places are taken.",
  loading: "The model is still loading.",
  load_failed: "The model could not be loaded.",
  shutting_down: "The server is shutting down.",
  queue_timeout: "The server was too busy to begin with this in time.",
  request_timeout: "The answer took too long and was ended.",
  invalid_api_key: "This server wants an API key: type it in above.",
  context_length_exceeded: "This is longer than the model can take in.",
  body_too_large: "This is longer than the server takes.",
  model_not_found: "The server does not have this model any more: load the page again.",
  internal_error: "The server failed. Its log tells why.",
};

/** The failure of an error from the server; `retryAfter` in seconds or null. */
function failureOf(error, status, requestId, retryAfter = null) {
  const words = IN_WORDS[error.code];
  const advice = retryAfter ? ` Try again in ${retryAfter} s.` : "";
  const told = [status, error.code].filter(Boolean).join(" ");
  const details = [words ? `${told}: ${error.message}` : told, requestId && `request ${requestId}`];
  return new Failure((words ?? error.message) + advice, details.filter(Boolean).join(" · "));
}

/** The failure of a response, from the server's envelope where there is one. */
async function failureFrom(response) {
  const body = await response.json().catch(() => null);
  if (!body || !body.error) return new Failure(`The server answered with status ${response.status}.`);
  return failureOf(body.error, response.status, body.request_id, response.headers.get("Retry-After"));
}

/** What anything that was caught means. */
function asFailure(caught) {
  if (caught instanceof Failure) return caught;
  // What `fetch` says of a connection that fails, in every browser another text.
  if (caught instanceof TypeError) return new Failure("The server does not answer. Is it still running?", caught.message);
  return new Failure(caught.message);
}

/** The path that everything lies below: empty, or the server's PATH_PREFIX. */
const BASE = location.pathname.replace(/\/[^/]*$/, "");

/** What this browser keeps for this address; another server on the same host has its own. */
const kept = {
  get(name, otherwise) {
    try {
      return JSON.parse(localStorage.getItem(`forklift ${BASE} ${name}`)) ?? otherwise;
    } catch {
      return otherwise;
    }
  },
  set(name, value) {
    try {
      localStorage.setItem(`forklift ${BASE} ${name}`, JSON.stringify(value));
    } catch {
      // Full, or not allowed: then it lasts as long as the page.
    }
  },
};

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

/** The command line that does the same; the key itself is never shown. */
function curlLine(method, path, type, body, hasKey, isStream) {
  const parts = [`curl ${isStream ? "-N " : ""}${method === "GET" ? "" : `-X ${method} `}${location.origin}${BASE}${path}`];
  if (type) parts.push(`-H ${quoted(`Content-Type: ${type}`)}`);
  if (hasKey) parts.push('-H "Authorization: Bearer $FORKLIFT_KEY"');
  if (body !== undefined) parts.push(`-d ${quoted(typeof body === "string" ? body : JSON.stringify(body))}`);
  return parts.join(" \\\n  ");
}

/** The events of a stream, parsed. Throws where it ends without `[DONE]`. */
async function* streamEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let pending = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new Failure("The connection broke off before the answer was whole.");
    pending += value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      if (block === "data: [DONE]") return;
      if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
    }
  }
}
