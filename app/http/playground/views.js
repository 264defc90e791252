"use strict";
// What is shown of an answer. Each view takes pieces as they come and knows nothing of requests.

const HOLE = "<HOLE>";

/** Colour of a probability, from red (0) to green (1). */
const colour = (probability) => `hsl(${Math.round(120 * probability)} 80% 45% / .4)`;

const percent = (probability) => `${(100 * probability).toFixed(1)} %`;

/** Line breaks and blanks as signs, where a token stands alone. */
const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣");

function showRivals(token) {
  const rows = token.top_logprobs.map((rival) => {
    const probability = Math.exp(rival.logprob);
    return make(
      "tr",
      {},
      make("td", { className: "code", textContent: visible(rival.token) }),
      make("td", {}, make("meter", { value: probability })),
      make("td", { className: "number", textContent: percent(probability) }),
    );
  });
  byId("rivals").replaceChildren(...rows);
  byId("rivals").hidden = rows.length === 0;
}

/** An element for a token, with its probability as background. */
function tokenElement(token, text) {
  const probability = Math.exp(token.logprob);
  const title = `${visible(token.token)}  ${percent(probability)}`;
  const element = make("span", { className: "token", textContent: text, title, tabIndex: 0 });
  element.style.backgroundColor = colour(probability);
  element.addEventListener("mouseenter", () => showRivals(token));
  element.addEventListener("focus", () => showRivals(token));
  return element;
}

/** Text that grows: by tokens as far as they are known, then as it came, since they may lag behind. */
class GrowingText {
  constructor(target) {
    this.target = target;
    this.tail = document.createTextNode("");
    this.unclaimed = [];
    this.decoder = new TextDecoder();
    target.append(this.tail);
  }

  add(text, tokens) {
    this.unclaimed.push(...new TextEncoder().encode(text));
    if (tokens && tokens.length) byId("legend").hidden = false;
    for (const token of tokens || []) this.tail.before(tokenElement(token, this.claim(token.bytes)));
    this.tail.data = new TextDecoder().decode(new Uint8Array(this.unclaimed));
  }

  /** The text of a token: a character's first bytes show with its last; a token without text is a sign. */
  claim(bytes) {
    if (!bytes.length || bytes.some((byte, index) => byte !== this.unclaimed[index])) return "◼";
    this.unclaimed.splice(0, bytes.length);
    return this.decoder.decode(new Uint8Array(bytes), { stream: true });
  }
}

/** The prompt; returns the text behind it. */
function showCompletion(prompt) {
  const made = make("span", { className: "made" });
  byId("output").replaceChildren(make("span", { className: "given", textContent: prompt }), made);
  byId("output").hidden = false;
  return new GrowingText(made);
}

/** What fills a hole: its element is marked as made once something comes. */
function openHole(element) {
  element.replaceChildren();
  element.className = "made";
  return new GrowingText(element);
}

/** The code with an element for each hole. */
function showHoles(parts) {
  const holes = parts.slice(1).map(() => make("span", { className: "hole", textContent: "…" }));
  const shown = parts.flatMap((part, index) => {
    const text = make("span", { className: "given", textContent: part });
    return index === 0 ? [text] : [holes[index - 1], text];
  });
  byId("output").replaceChildren(...shown);
  byId("output").hidden = false;
  return holes;
}

/** A row of a table for something with a score. */
const scoreRow = (score, ...cells) =>
  make(
    "tr",
    {},
    ...cells,
    make("td", {}, make("meter", { value: score, ariaLabel: percent(score) })),
    make("td", { className: "number", textContent: percent(score) }),
  );

/** Tables, a text or whatever else a task's answer is. */
function showResult(...children) {
  byId("result").replaceChildren(...children);
  byId("result").hidden = false;
}

function showTimings(details, numTokens) {
  const { queue_ms, ttft_ms, total_ms } = details.timings;
  const parts = [
    `queue ${queue_ms} ms`,
    `first token ${ttft_ms} ms`,
    `total ${total_ms} ms`,
    `${details.usage.prompt_tokens} + ${numTokens} tokens`,
  ];
  if (numTokens > 1 && total_ms > ttft_ms) {
    parts.push(`${((1000 * (numTokens - 1)) / (total_ms - ttft_ms)).toFixed(0)} tokens/s`);
  }
  byId("timings").textContent = [...parts, `ended by ${details.finish_reason}`].join(" · ");
}

function clearResult() {
  for (const id of ["output", "result", "rivals", "legend", "error"]) byId(id).hidden = true;
  byId("output").replaceChildren();
  byId("timings").textContent = "";
}

function showFailure(failure) {
  byId("error-text").textContent = failure.message;
  byId("error-details").textContent = failure.details;
  byId("error").hidden = false;
}
