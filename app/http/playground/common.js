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

/** The text of a failure, from the server's envelope where there is one. */
async function failureText(response) {
  const body = await response.json().catch(() => null);
  if (!body || !body.error) return `HTTP ${response.status}`;
  const retry = response.headers.get("Retry-After");
  const advice = retry ? `\ntry again in ${retry} s` : "";
  return `${response.status} ${body.error.code}: ${body.error.message}${advice}\nrequest ${body.request_id}`;
}

/** The path that everything lies below: empty, or the server's PATH_PREFIX. */
const BASE = location.pathname.replace(/\/[^/]*$/, "");

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
    if (done) throw new Error("the stream ended early");
    pending += value;
    const blocks = pending.split("\n\n");
    pending = blocks.pop();
    for (const block of blocks) {
      if (block === "data: [DONE]") return;
      if (block.startsWith("data: ")) yield JSON.parse(block.slice(6));
    }
  }
}
