"use strict";
// The conversation: what was said, kept in this browser, and its messages on the screen.

// Answers are rendered as markdown up to this length, the server's bound.
const MOST_MARKDOWN = 16000;

/** Messages `{role, content, note}`; `note` says why an answer is not whole. */
class Conversation {
  constructor(model) {
    this.name = `conversation ${model}`;
    this.messages = kept.get(this.name, []).filter(
      (one, index) => typeof one?.content === "string" && one.role === (index % 2 ? "assistant" : "user"),
    );
  }

  keep() {
    kept.set(this.name, this.messages);
  }

  /** Only the first `count` messages stay. */
  cut(count) {
    this.messages.length = count;
    this.keep();
  }

  add(role, content, note = "") {
    this.messages.push({ role, content, note });
    this.keep();
  }

  /** What the server is sent, with a question that is not yet part of it. */
  asked(question) {
    const system = byId("system").value;
    const first = system ? [{ role: "system", content: system }] : [];
    const said = this.messages.map(({ role, content }) => ({ role, content }));
    return [...first, ...said, { role: "user", content: question }];
  }
}

/** Whether the newest is in sight: then what comes is followed, else the reader is left where they are. */
const isAtEnd = (box) => box.scrollHeight - box.scrollTop - box.clientHeight < 60;

function followed(box, change) {
  const wasAtEnd = isAtEnd(box);
  const result = change();
  if (wasAtEnd) box.scrollTop = box.scrollHeight;
  return result;
}

/** A small button that says for a moment that it did its work. */
function copyButton(name, text) {
  const button = make("button", { type: "button", className: "small", textContent: name });
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text());
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = name), 1500);
  });
  return button;
}

function action(name, act) {
  const button = make("button", { type: "button", className: "small", textContent: name });
  button.addEventListener("click", act);
  return button;
}

/** The element of a message: its text, and a row for what can be done with it. */
function messageElement(role) {
  const text = make("div", { className: "text" });
  const element = make("article", { className: `message ${role}`, ariaLabel: role === "user" ? "You" : "Answer" }, text);
  byId("conversation").append(element);
  return { element, text };
}

/** Markdown as the server renders it: it lets no markup of the text through. The text stays where that fails. */
async function renderMarkdown(target, text) {
  if (!text.trim() || text.length > MOST_MARKDOWN) return;
  const sent = { method: "POST", headers: requestHeaders("application/json"), body: JSON.stringify({ text }) };
  const response = await fetch(`${BASE}/markdown`, sent).catch(() => null);
  if (!response?.ok) return;
  const { html } = await response.json();
  followed(byId("conversation"), () => {
    // Scripts of a document that is parsed like this never run, should any ever come through.
    target.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);
    target.classList.add("markdown");
    for (const link of target.querySelectorAll("a")) Object.assign(link, { target: "_blank", rel: "noopener noreferrer" });
    for (const code of target.querySelectorAll("pre")) code.before(copyButton("Copy code", () => code.textContent));
  });
}

/** Shows what was said; `ask(question)` asks, and tells whether anything came of it. */
class ConversationView {
  constructor(ask) {
    this.ask = ask;
    this.conversation = null;
  }

  show(conversation) {
    this.conversation = conversation;
    byId("conversation").replaceChildren();
    conversation.messages.forEach((_, index) => this.add(index));
    byId("conversation").scrollTop = byId("conversation").scrollHeight;
  }

  /** A message that is already part of the conversation. */
  add(index, open = null) {
    const { role, content, note } = this.conversation.messages[index];
    const { element, text } = open ?? messageElement(role);
    if (!open) text.textContent = content;
    if (role === "assistant" && !text.querySelector(".token")) renderMarkdown(text, content);
    const acts = role === "user" ? [action("Edit", () => this.edit(index, element))] : this.answerActs(index, content);
    const told = note ? [make("span", { className: "note", textContent: note })] : [];
    element.append(make("div", { className: "acts" }, ...acts, ...told));
  }

  answerActs(index, content) {
    return [copyButton("Copy", () => content), action("Regenerate", () => this.again(index - 1))];
  }

  /** Asks the question at `index` again, or in other words. Where nothing comes of it, what was there stays. */
  async again(index, question = this.conversation.messages[index].content) {
    if (byId("run").disabled) return;
    const before = [...this.conversation.messages];
    this.conversation.cut(index);
    this.show(this.conversation);
    if (await this.ask(question)) return;
    this.conversation.messages = before;
    this.conversation.keep();
    this.show(this.conversation);
  }

  edit(index, element) {
    const input = make("textarea", { className: "short", value: this.conversation.messages[index].content, ariaLabel: "Question" });
    const acts = make(
      "div",
      { className: "acts" },
      action("Send again", () => this.again(index, input.value)),
      action("Cancel", () => this.show(this.conversation)),
    );
    element.replaceChildren(input, acts);
    input.focus();
  }
}
