"use strict";
// The playground: what is on the screen becomes a request, and its answer goes to the views.

const NUMBERS = ["max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"];
const EXAMPLE_CODE = `def add(a, b):\n    ${HOLE}\n\n\nprint(add(1, 2))\n`;
const TABS = {
  complete: { title: "Complete", path: "/complete", key: "completion" },
  infill: { title: "Infill", path: "/infill", key: "infill" },
  chat: { title: "Chat", path: "/chat", key: "response" },
  "fill-mask": { title: "Fill mask", path: "/fill-mask" },
};

let model = null;
let tab = null;
let history = [];
let running = null;

const parts = () => byId("code").value.split(HOLE);

/** The fields of the parameters that are filled in. */
function options() {
  const found = {};
  for (const input of byId("parameters").querySelectorAll("input")) {
    if (input.value !== "") found[input.name] = input.type === "number" ? Number(input.value) : input.value;
  }
  if (found.stop) found.stop = found.stop.replaceAll("\\n", "\n");
  return found;
}

/** The body of the request that is on the screen. */
function requestBody() {
  const body = options();
  if (tab === "complete") body.prompt = byId("prompt").value;
  if (tab === "infill") body.parts = parts();
  if (tab === "chat") Object.assign(body, { prompt: byId("question").value, history });
  if (tab === "fill-mask") body.text = byId("masked").value;
  const route = model.routes[TABS[tab].path];
  if (route.logprobs && tab !== "infill" && byId("logprobs").checked) body.logprobs = 5;
  if (route.stream && byId("stream").checked && (tab !== "infill" || parts().length === 2)) body.stream = true;
  return body;
}

function showCurl() {
  if (!tab) return;
  const body = requestBody();
  const hasKey = byId("key").value.trim() !== "";
  byId("curl").textContent = curlLine("POST", TABS[tab].path, "application/json", body, hasKey, Boolean(body.stream));
}

/** An input with the bounds that the server enforces. */
function parameterInput(name, field) {
  const isNumber = NUMBERS.includes(name) || name === "top_k";
  const input = make("input", { name, id: `parameter-${name}`, type: isNumber ? "number" : "text", step: "any" });
  if (field.minimum !== undefined) input.min = field.minimum;
  if (field.maximum !== undefined) input.max = field.maximum;
  if (name === "max_new_tokens") input.placeholder = model.limits.default_new_tokens;
  if (name === "stop") input.placeholder = "e.g. \\n\\n";
  return make("label", { title: field.description || "" }, name, input);
}

function select(name) {
  tab = name;
  for (const one of Object.keys(TABS)) byId(one).hidden = one !== name;
  for (const button of byId("tabs").children) button.ariaSelected = String(button.dataset.tab === name);
  const route = model.routes[TABS[name].path];
  const names = [...NUMBERS, "stop"].filter((one) => one in route);
  byId("parameters").replaceChildren(...names.map((one) => parameterInput(one, route[one])));
  byId("stream-label").hidden = !route.stream;
  byId("logprobs-label").hidden = !route.logprobs || name === "infill";
  byId("clear").hidden = name !== "chat";
  byId("run").textContent = name === "chat" ? "Send" : "Run";
  clearResult();
  if (name === "infill") showHoles(parts());
  showCurl();
}

/** The tabs for what the model does. */
function showTabs() {
  const does = { complete: model.task === "generate", "fill-mask": model.task === "fill-mask" };
  const names = Object.keys(TABS).filter((name) => does[name] ?? (does.complete && model.supports[name]));
  const buttons = names.map((name) => {
    const button = make("button", { type: "button", role: "tab", textContent: TABS[name].title });
    button.dataset.tab = name;
    button.addEventListener("click", () => running || select(name));
    return button;
  });
  byId("tabs").replaceChildren(...buttons);
  byId("run").disabled = names.length === 0;
  if (names.length) select(names[0]);
  else showError("This model makes embeddings: see the API page for POST /v1/embeddings.");
}

async function askCapabilities() {
  byId("error").hidden = true;
  const response = await fetch(`${BASE}/v1/capabilities`, { headers: requestHeaders() });
  if (response.status === 503) setTimeout(askCapabilities, 1500);
  if (!response.ok) {
    byId("about").textContent = response.status === 401 ? "an API key is needed" : "not ready yet";
    return showError(await failureText(response));
  }
  model = (await response.json()).data[0];
  const kind = [model.task, `${model.context_tokens} tokens of context`, model.dtype];
  byId("about").textContent = `${model.id} · ${kind.join(" · ")}`;
  return showTabs();
}

/** The texts that what comes is added to: one, or one per hole. */
function openTargets(body) {
  if (tab === "infill") return showHoles(body.parts).map(openHole);
  if (tab === "complete") return [showCompletion(body.prompt)];
  if (tab === "chat") addMessage("user", body.prompt);
  return tab === "chat" ? [addMessage("assistant", "")] : [];
}

/** Shows a whole answer. */
function showWhole(answer, targets) {
  if (tab === "fill-mask") return showProposals(answer);
  if (tab === "infill") targets.forEach((hole, index) => hole.add(answer.infills[index]));
  else targets[0].add(answer[TABS[tab].key], answer.logprobs);
  return showTimings(answer, answer.usage.completion_tokens);
}

/** Shows a stream as it comes; returns its last event. */
async function showStream(response, targets) {
  let last = {};
  for await (const event of streamEvents(response)) {
    if (event.error) throw new Error(`${event.error.code}: ${event.error.message}`);
    targets[0].add(event[TABS[tab].key], event.logprobs);
    last = event;
  }
  showTimings(last, last.usage.completion_tokens);
  return last;
}

async function run() {
  const body = requestBody();
  running = new AbortController();
  byId("run").disabled = true;
  byId("stop").disabled = false;
  clearResult();
  try {
    const headers = requestHeaders("application/json");
    const sent = { method: "POST", headers, body: JSON.stringify(body), signal: running.signal };
    const response = await fetch(BASE + TABS[tab].path, sent);
    if (!response.ok) throw new Error(await failureText(response));
    const targets = openTargets(body);
    const answer = body.stream ? await showStream(response, targets) : await response.json();
    if (!body.stream) showWhole(answer, targets);
    if (tab === "chat") endRound(answer.history);
  } catch (failure) {
    if (failure.name !== "AbortError") showError(failure.message);
  }
  running = null;
  byId("run").disabled = false;
  byId("stop").disabled = true;
}

function endRound(rounds) {
  history = rounds;
  byId("question").value = "";
  showCurl();
}

byId("code").value = EXAMPLE_CODE;
byId("hole-mark").textContent = HOLE;
byId("run").addEventListener("click", run);
byId("stop").addEventListener("click", () => running && running.abort());
byId("key").addEventListener("change", askCapabilities);
byId("clear").addEventListener("click", () => {
  history = [];
  byId("conversation").replaceChildren();
  clearResult();
  showCurl();
});
byId("insert-hole").addEventListener("click", () => {
  byId("code").setRangeText(HOLE, byId("code").selectionStart, byId("code").selectionEnd, "end");
  byId("code").dispatchEvent(new Event("input", { bubbles: true }));
});
byId("code").addEventListener("input", () => showHoles(parts()));
byId("copy").addEventListener("click", () => navigator.clipboard.writeText(byId("curl").textContent));
document.addEventListener("input", showCurl);
document.addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !byId("run").disabled) run();
});
askCapabilities();
