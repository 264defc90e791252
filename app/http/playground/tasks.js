"use strict";
// The tasks that are a form and an answer: one entry each, with its fields, examples, and how an answer is shown.

const lines = (text) => text.split("\n").filter((line) => line.trim() !== "");
const listed = (found) => (Array.isArray(found) ? found : [found]);
const cell = (text, className = "") => make("td", { className, textContent: text });

/** One list per text: a single one comes as it is. */
const byText = (found) => (Array.isArray(found[0]) ? found : [found]);

function proposalTable(proposals) {
  return make(
    "table",
    {},
    ...proposals.map((one) => scoreRow(one.score, cell(one.token_str, "code"), cell(one.sequence))),
  );
}

const labelTable = (labels) => make("table", {}, ...labels.map((one) => scoreRow(one.score, cell(one.label))));

/** The text with what was found in it marked; offsets count characters, not UTF-16 units. */
function markedText(text, found) {
  const characters = Array.from(text);
  const parts = [];
  let done = 0;
  for (const one of found.filter((one) => one.start !== null).sort((a, b) => a.start - b.start)) {
    if (one.start < done) continue;
    const kind = one.entity_group ?? one.entity ?? percent(one.score);
    parts.push(characters.slice(done, one.start).join(""));
    parts.push(make("mark", { title: percent(one.score) }, characters.slice(one.start, one.end).join(""), make("sup", {}, ` ${kind}`)));
    done = one.end;
  }
  return make("p", { className: "marked" }, ...parts, characters.slice(done).join(""));
}

const dot = (a, b) => a.reduce((sum, value, index) => sum + value * b[index], 0);

/** How alike the texts are, by the cosine of their vectors. */
function similarities(texts, vectors) {
  const lengths = vectors.map((vector) => Math.sqrt(dot(vector, vector)) || 1);
  const rows = vectors.map((one, row) =>
    make(
      "tr",
      {},
      cell(texts[row]),
      ...vectors.map((other, column) => cell((dot(one, other) / lengths[row] / lengths[column]).toFixed(3), "number")),
    ),
  );
  return [make("p", { className: "note", textContent: `${vectors[0].length} dimensions; cosine of each with each` }), make("table", {}, ...rows)];
}

const textField = (value) => ({ name: "text", label: "Text", value });

const TASKS = {
  "fill-mask": {
    title: "Fill mask",
    path: "/fill-mask",
    fields: [textField("The capital of France is [MASK].")],
    show: (answer) => byText(answer).map(proposalTable),
  },
  classify: {
    title: "Classify",
    path: "/classify",
    fields: [textField("I like it a lot.")],
    also: { top_k: 10 },
    show: (answer) => byText(answer).map(labelTable),
  },
  "zero-shot": {
    title: "Zero-shot",
    path: "/zero-shot",
    fields: [
      textField("My phone does not charge any more."),
      { name: "candidate_labels", label: "Labels, one per line", value: "phone\ngarden\nholidays", read: lines },
    ],
    show: (answer) => [labelTable(answer.labels.map((label, index) => ({ label, score: answer.scores[index] })))],
  },
  entities: {
    title: "Entities",
    path: "/entities",
    fields: [textField("Sarah works for the museum in London.")],
    also: { aggregation_strategy: "simple" },
    show: (answer, body) => [markedText(body.text, answer)],
  },
  answer: {
    title: "Answer",
    path: "/answer",
    fields: [
      { name: "question", label: "Question", value: "Where does Sarah work?" },
      { name: "context", label: "Text with the answer", value: "Sarah works for the museum in London." },
    ],
    show: (answer, body) => listed(answer).map((one) => markedText(body.context, [one])),
  },
  rerank: {
    title: "Rerank",
    path: "/rerank",
    fields: [
      { name: "query", label: "Query", value: "What is a panda?" },
      { name: "documents", label: "Documents, one per line", value: "A city of France.\nA bear of China.", read: lines },
    ],
    show: (answer, body) => [
      make(
        "table",
        {},
        ...answer.results.map((one) => make("tr", {}, cell(body.documents[one.index]), cell(one.relevance_score.toFixed(4), "number"))),
      ),
    ],
  },
  embeddings: {
    title: "Embeddings",
    path: "/v1/embeddings",
    fields: [{ name: "input", label: "Texts, one per line", value: "a cat\na kitten\na lorry", read: lines }],
    show: (answer, body) => similarities(body.input, answer.data.map((one) => one.embedding)),
  },
  translate: {
    title: "Translate",
    path: "/translate",
    fields: [
      textField("Where is the station?"),
      { name: "src_lang", label: "From (as the model calls it)", value: "", isShort: true },
      { name: "tgt_lang", label: "Into", value: "", isShort: true },
    ],
    show: (answer) => listed(answer.translation).map((text) => make("p", { className: "marked", textContent: text })),
  },
  summarize: {
    title: "Summarize",
    path: "/summarize",
    fields: [textField("The station was built in 1890. It burned down in 1921 and was built again within two years.")],
    show: (answer) => listed(answer.summary).map((text) => make("p", { className: "marked", textContent: text })),
  },
};

/** The inputs of a task, with what they last held. */
function taskForm(name) {
  return TASKS[name].fields.map((field) => {
    const value = kept.get(`${name} ${field.name}`, field.value);
    const fields = { id: `field-${field.name}`, value, ...(field.isShort ? {} : { className: "short" }) };
    const input = make(field.isShort ? "input" : "textarea", fields);
    input.addEventListener("input", () => kept.set(`${name} ${field.name}`, input.value));
    return make("label", { className: "field" }, field.label, input);
  });
}

/** What the inputs ask; an empty short field is not sent. */
function taskBody(name) {
  const body = { ...TASKS[name].also };
  for (const field of TASKS[name].fields) {
    const value = byId(`field-${field.name}`).value;
    if (!field.isShort || value !== "") body[field.name] = field.read ? field.read(value) : value;
  }
  return body;
}
