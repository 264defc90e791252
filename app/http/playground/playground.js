"use strict";
// The playground: what is on the screen becomes a request, and its answer goes to the views.

const NUMBERS = ["max_new_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"];
const SHOWN = [...NUMBERS, "stop"];
const GENERATING = {
  complete: { title: "Complete", path: "/complete", key: "completion" },
  infill: { title: "Infill", path: "/infill", key: "infill" },
  chat: { title: "Chat", path: "/chat", key: "response" },
};
const TABS = { ...GENERATING, ...TASKS };
const INPUTS = { complete: "prompt", infill: "code", chat: "question" };
// The embedded demo model knows Python's library and little else.
const OF_DEMO = {
  complete: ["def __len__(self):\n", "def is_empty(self):\n"],
  infill: [`def __len__(self):\n    ${HOLE}\n`],
  chat: ["What does textwrap.dedent do?", "What does os.path.join do?", "What does json.dumps do?"],
};
const OF_OTHERS = {
  complete: ["def read_file(path):\n    with open(path", "Dear customer,\n\n"],
  infill: [`def add(a, b):\n    ${HOLE}\n\n\nprint(add(1, 2))\n`],
  chat: ["Explain in three sentences what a reverse proxy does.", "Write a Python function that reverses a list, with a test."],
};
const COUNT_AFTER_MS = 500;

let models = [];
let model = null;
let tab = null;
let running = null;
let countTimer = null;
const chatView = new ConversationView((question) => converse(question));

const parts = () => byId("code").value.split(HOLE);
const route = () => model.routes[TABS[tab].path];

/** The fields of the parameters that are filled in. */
function options() {
  const found = {};
  for (const input of byId("parameters").querySelectorAll("input")) {
    if (input.value !== "") found[input.name] = input.type === "number" ? Number(input.value) : input.value;
  }
  if (found.stop) found.stop = found.stop.replaceAll("\\n", "\n");
  if (models.length > 1) found.model = model.id;
  return found;
}

/** The body of the request that is on the screen; of a conversation with this question. */
function requestBody(question = byId("question").value) {
  if (tab in TASKS) return { ...taskBody(tab), ...options() };
  const body = options();
  if (tab === "complete") body.prompt = byId("prompt").value;
  if (tab === "infill") body.parts = parts();
  if (tab === "chat") body.messages = chatView.conversation.asked(question);
  if (route().logprobs && tab !== "infill" && byId("logprobs").checked) body.logprobs = 5;
  if (route().stream && byId("stream").checked && (tab !== "infill" || parts().length === 2)) body.stream = true;
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
  const isNumber = NUMBERS.includes(name);
  const value = kept.get("parameters", {})[name] ?? "";
  const input = make("input", { name, id: `parameter-${name}`, type: isNumber ? "number" : "text", step: "any", value });
  if (field.minimum !== undefined) input.min = field.minimum;
  if (field.maximum !== undefined) input.max = field.maximum;
  if (name === "max_new_tokens") input.placeholder = model.limits.default_new_tokens;
  if (name === "stop") input.placeholder = "e.g. \\n\\n";
  input.addEventListener("input", () => kept.set("parameters", { ...kept.get("parameters", {}), [name]: input.value }));
  return make("label", { title: field.description || "" }, name, input);
}

const isDemo = () => model.id === "forklift-demo";

/** Examples that the model can answer, as buttons. */
function showExamples() {
  const found = (isDemo() ? OF_DEMO : OF_OTHERS)[tab] ?? [];
  const buttons = found.map((text) =>
    action(text.trim().split("\n")[0], () => {
      byId(INPUTS[tab]).value = text;
      byId(INPUTS[tab]).dispatchEvent(new Event("input", { bubbles: true }));
      byId(INPUTS[tab]).focus();
    }),
  );
  byId("examples").replaceChildren(make("span", { className: "note" }, "Try"), ...buttons);
  byId("examples").hidden = found.length === 0;
}

function select(name) {
  tab = name;
  kept.set("tab", name);
  for (const one of Object.keys(GENERATING)) byId(one).hidden = one !== name;
  byId("task").hidden = !(name in TASKS);
  byId("task").replaceChildren(...(name in TASKS ? taskForm(name) : []));
  for (const button of byId("tabs").children) {
    const isChosen = button.dataset.tab === name;
    button.ariaSelected = String(isChosen);
    button.tabIndex = isChosen ? 0 : -1;
    if (isChosen) byId("panel").setAttribute("aria-labelledby", button.id);
  }
  const names = SHOWN.filter((one) => one in route() && !(TABS[name].also && one in TABS[name].also));
  byId("parameters").replaceChildren(...names.map((one) => parameterInput(one, route()[one])));
  byId("stream-label").hidden = name in TASKS || !route().stream;
  byId("logprobs-label").hidden = name in TASKS || !route().logprobs || name === "infill";
  byId("clear").hidden = name !== "chat";
  byId("run").textContent = name === "chat" ? "Send" : "Run";
  clearResult();
  showExamples();
  if (name === "infill") showHoles(parts());
  changed();
}

/** The tabs for what the model does. */
function showTabs() {
  const isThere = (name) => TABS[name].path in model.routes && (model.supports?.[name] ?? true);
  const names = Object.keys(TABS).filter(isThere);
  const buttons = names.map((name) => {
    const button = make("button", { type: "button", role: "tab", id: `tab-${name}`, textContent: TABS[name].title });
    button.dataset.tab = name;
    button.setAttribute("aria-controls", "panel");
    button.addEventListener("click", () => running || select(name));
    return button;
  });
  byId("tabs").replaceChildren(...buttons);
  byId("run").disabled = names.length === 0;
  const last = kept.get("tab", null);
  if (names.length) select(names.includes(last) ? last : names[0]);
}

function useModel(name) {
  model = models.find((one) => one.id === name) ?? models[0];
  kept.set("model", model.id);
  byId("models").value = model.id;
  const kind = [model.task, model.context_tokens && `${model.context_tokens} tokens of context`, model.dtype];
  byId("about").textContent = [models.length > 1 ? null : model.id, ...kind].filter(Boolean).join(" · ");
  const examples = isDemo() ? OF_DEMO : OF_OTHERS;
  for (const [name, input] of Object.entries(INPUTS)) {
    byId(input).value = name === "chat" ? "" : kept.get(`input ${name} ${model.id}`, examples[name][0]);
  }
  byId("system").value = kept.get(`system ${model.id}`, "");
  byId("system-part").open = byId("system").value !== "";
  chatView.show(new Conversation(model.id));
  showTabs();
}

async function askCapabilities() {
  byId("error").hidden = true;
  try {
    const response = await fetch(`${BASE}/v1/capabilities`, { headers: requestHeaders() });
    if (response.status === 503) setTimeout(askCapabilities, 1500);
    if (!response.ok) {
      byId("about").textContent = response.status === 401 ? "an API key is needed" : "not ready yet";
      return showFailure(await failureFrom(response));
    }
    models = (await response.json()).data;
  } catch (caught) {
    byId("about").textContent = "no connection";
    return showFailure(asFailure(caught));
  }
  byId("models").replaceChildren(...models.map((one) => make("option", { value: one.id, textContent: one.id })));
  byId("models-label").hidden = models.length < 2;
  return useModel(kept.get("model", null));
}

/** The texts that what comes is added to: one, or one per hole. */
function openTargets(body) {
  if (tab === "infill") return showHoles(body.parts).map(openHole);
  if (tab === "complete") return [showCompletion(body.prompt)];
  return [];
}

/** Shows a whole answer. */
function showWhole(answer, targets) {
  if (tab === "infill") targets.forEach((hole, index) => hole.add(answer.infills[index]));
  else targets[0].add(answer[TABS[tab].key], answer.logprobs);
  return showTimings(answer, answer.usage.completion_tokens);
}

/** Shows a stream as it comes. */
async function showStream(response, targets) {
  let last = {};
  for await (const event of streamEvents(response)) {
    if (event.error) throw failureOf(event.error, null, event.request_id);
    targets[0].add(event[TABS[tab].key], event.logprobs);
    last = event;
  }
  showTimings(last, last.usage.completion_tokens);
}

/** Sends a body to the tab's route, which `show` is given the response of; one at a time. */
async function ask(body, show) {
  running = new AbortController();
  byId("run").disabled = byId("models").disabled = true;
  byId("stop").disabled = false;
  byId("panel").ariaBusy = "true";
  clearResult();
  try {
    const headers = requestHeaders("application/json");
    const sent = { method: "POST", headers, body: JSON.stringify(body), signal: running.signal };
    const response = await fetch(BASE + TABS[tab].path, sent);
    if (!response.ok) throw await failureFrom(response);
    await show(response);
    return "";
  } catch (caught) {
    if (caught.name === "AbortError") return "stopped";
    showFailure(asFailure(caught));
    return "broke off";
  } finally {
    running = null;
    byId("run").disabled = byId("models").disabled = false;
    byId("stop").disabled = true;
    byId("panel").ariaBusy = "false";
  }
}

async function run() {
  if (tab === "chat") return send();
  const body = requestBody();
  return ask(body, async (response) => {
    if (tab in TASKS) return showResult(...TASKS[tab].show(await response.json(), body));
    const targets = openTargets(body);
    return body.stream ? showStream(response, targets) : showWhole(await response.json(), targets);
  });
}

/** A text of the conversation that grows, and what it holds. */
class AnswerText extends GrowingText {
  constructor(target) {
    super(target);
    this.said = "";
  }

  add(text, tokens) {
    this.said += text;
    followed(byId("conversation"), () => super.add(text, tokens));
  }
}

/** Asks what was typed; where nothing is said it is there again to be sent. */
async function send() {
  const question = byId("question").value;
  if (!question.trim()) return;
  byId("question").value = "";
  if (!(await converse(question))) byId("question").value ||= question;
  changed();
}

/** Asks a question of the conversation, and tells whether any answer came: that is kept, whatever ended it. */
async function converse(question) {
  const { conversation } = chatView;
  const body = requestBody(question);
  const asked = messageElement("user");
  asked.text.textContent = question;
  const open = messageElement("assistant");
  byId("conversation").scrollTop = byId("conversation").scrollHeight;
  const answer = new AnswerText(open.text);
  const ended = await ask(body, async (response) => {
    if (body.stream) await showStream(response, [answer]);
    else showWhole(await response.json(), [answer]);
  });
  if (ended && !answer.said) {
    asked.element.remove();
    open.element.remove();
    return false;
  }
  conversation.add("user", question);
  conversation.add("assistant", answer.said, ended);
  followed(byId("conversation"), () => {
    chatView.add(conversation.messages.length - 2, asked);
    chatView.add(conversation.messages.length - 1, open);
  });
  showCurl();
  return true;
}

/** How many tokens the prompt has, once the typing rests. */
function countSoon() {
  clearTimeout(countTimer);
  byId("count").textContent = "";
  if (tab === "complete" || tab === "chat") countTimer = setTimeout(count, COUNT_AFTER_MS);
}

async function count() {
  if (running || !byId(INPUTS[tab]).value) return;
  const of = models.length > 1 ? { model: model.id } : {};
  const system = byId("system").value;
  const { messages } = tab === "chat" ? requestBody() : {};
  const [path, body, key] = messages
    ? ["/v1/messages/count_tokens", { messages: messages.filter((one) => one.role !== "system"), ...(system && { system }), ...of }, "input_tokens"]
    : ["/tokenize", { text: byId("prompt").value, ...of }, "count"];
  const sent = { method: "POST", headers: requestHeaders("application/json"), body: JSON.stringify(body) };
  const response = await fetch(BASE + path, sent).catch(() => null);
  // A busy server has better things to do.
  if (response?.ok) byId("count").textContent = `${(await response.json())[key]} tokens`;
}

function changed() {
  showCurl();
  if (tab) countSoon();
}

/** Keeps what is typed, and shows what it changes. */
function keepInputs() {
  if (!model) return;
  if (tab === "complete" || tab === "infill") kept.set(`input ${tab} ${model.id}`, byId(INPUTS[tab]).value);
  if (tab === "chat") kept.set(`system ${model.id}`, byId("system").value);
  changed();
}

/** Arrow keys move along the tabs, as readers of screens expect. */
function moveTab(event) {
  const buttons = [...byId("tabs").children];
  const at = buttons.indexOf(document.activeElement);
  const targets = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: -1 };
  if (at < 0 || !(event.key in targets) || running) return;
  event.preventDefault();
  const next = buttons.at(targets[event.key] % buttons.length);
  next.click();
  next.focus();
}

function sendOnEnter(event) {
  if (event.key !== "Enter" || byId("run").disabled) return;
  const isQuestion = event.target === byId("question") && !event.shiftKey && !event.isComposing;
  if (!isQuestion && !event.ctrlKey && !event.metaKey) return;
  event.preventDefault();
  run();
}

byId("hole-mark").textContent = HOLE;
byId("run").addEventListener("click", run);
byId("stop").addEventListener("click", () => running && running.abort());
byId("key").addEventListener("change", askCapabilities);
byId("models").addEventListener("change", () => useModel(byId("models").value));
byId("clear").addEventListener("click", () => {
  if (running) return;
  chatView.conversation.cut(0);
  chatView.show(chatView.conversation);
  clearResult();
  changed();
  byId("question").focus();
});
byId("insert-hole").addEventListener("click", () => {
  byId("code").setRangeText(HOLE, byId("code").selectionStart, byId("code").selectionEnd, "end");
  byId("code").dispatchEvent(new Event("input", { bubbles: true }));
});
byId("code").addEventListener("input", () => showHoles(parts()));
byId("copy").addEventListener("click", () => navigator.clipboard.writeText(byId("curl").textContent));
byId("tabs").addEventListener("keydown", moveTab);
document.addEventListener("input", keepInputs);
document.addEventListener("keydown", sendOnEnter);
askCapabilities();
