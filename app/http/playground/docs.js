"use strict";
// Shows /openapi.json: routes by tag, fields with their types, bounds and descriptions, a curl for each.

const BOUNDS = {
  minimum: "≥",
  exclusiveMinimum: ">",
  maximum: "≤",
  exclusiveMaximum: "<",
  minLength: "length ≥",
  maxLength: "length ≤",
  minItems: "items ≥",
  maxItems: "items ≤",
  pattern: "matches",
};

let api = null;

/** The object that a reference leads to. */
function resolve(schema) {
  if (!schema || !schema.$ref) return schema || {};
  return schema.$ref.slice(2).split("/").reduce((found, name) => found[name], api);
}

const nameOf = (schema) => (schema.$ref ? schema.$ref.split("/").pop() : null);

/** A type with its bounds, as people write it. */
function typeText(schema) {
  if (schema.$ref) return nameOf(schema);
  const choices = schema.anyOf || schema.oneOf;
  if (choices) return choices.filter((one) => one.type !== "null").map(typeText).join(" | ");
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((one) => JSON.stringify(one)).join(" | ");
  const bounds = Object.keys(BOUNDS).filter((name) => name in schema);
  const shown = bounds.map((name) => `${BOUNDS[name]} ${schema[name]}`);
  const inside = schema.items ? ` of (${typeText(schema.items)})` : "";
  return [`${schema.type || "any"}${inside}`, ...shown].join(", ");
}

/** Names of the schemas that a type is made of. */
function namesIn(schema) {
  if (schema.$ref) return [nameOf(schema)];
  const inside = [...(schema.anyOf || schema.oneOf || []), ...(schema.items ? [schema.items] : [])];
  return inside.flatMap(namesIn);
}

/** Text with what stands in backticks as code. */
function prose(tag, text, fields = {}) {
  const pieces = text.split(/`+/).map((piece, index) => (index % 2 ? make("code", { textContent: piece }) : piece));
  return make(tag, fields, ...pieces);
}

function heading(...names) {
  return make("tr", {}, ...names.map((name) => make("th", { textContent: name })));
}

function fieldRow(name, schema, isRequired) {
  return make(
    "tr",
    {},
    make("td", { className: "code", textContent: isRequired ? `${name} *` : name }),
    make("td", { className: "code", textContent: typeText(schema) }),
    prose("td", schema.description || ""),
  );
}

/** A table of the fields of a schema, then of those that its fields are made of. */
function fieldTables(schema, seen = new Set()) {
  const names = namesIn(schema).filter((name) => !seen.has(name));
  return names.flatMap((name) => {
    seen.add(name);
    const { properties = {}, required = [], description = "" } = api.components.schemas[name];
    const rows = Object.entries(properties).map(([field, one]) => fieldRow(field, one, required.includes(field)));
    const table = make("table", {}, heading("field", "type", "meaning"), ...rows);
    const inner = Object.values(properties).flatMap((one) => fieldTables(one, seen));
    return [prose("p", `${name}: ${description}`, { className: "note" }), table, ...inner];
  });
}

function parameterTable(parameters) {
  const rows = parameters.map(resolve).map((one) => {
    const schema = { ...one.schema, description: one.description };
    return fieldRow(`${one.name} (${one.in})`, schema, one.required);
  });
  return make("table", {}, heading("parameter", "type", "meaning"), ...rows);
}

function answerTable(responses) {
  const rows = Object.entries(responses).map(([status, found]) => {
    const answer = resolve(found);
    const kinds = Object.entries(answer.content || {}).map(([kind, content]) => {
      return content.schema ? `${kind}: ${typeText(content.schema)}` : kind;
    });
    return make(
      "tr",
      {},
      make("td", { textContent: status }),
      make("td", { className: "code", textContent: kinds.join("\n") }),
      prose("td", answer.description),
    );
  });
  return make("table", {}, heading("status", "body", "meaning"), ...rows);
}

/** A command line for each media type that has an example. */
function curlLines(method, path, operation) {
  const content = Object.entries(operation.requestBody?.content || { "": {} });
  const shown = content.filter(([kind, one]) => !kind || one.example !== undefined);
  const hasKey = byId("key").value.trim() !== "";
  return shown.map(([kind, { example }]) => {
    const body = kind.includes("form") ? new URLSearchParams(example).toString() : example;
    const line = curlLine(method, path.replace("{name}", "forklift-demo"), kind, body, hasKey, false);
    return make("pre", { textContent: line });
  });
}

function routeElement(path, method, operation) {
  const summary = make("summary", {}, make("span", { className: "method", textContent: method.toUpperCase() }));
  summary.append(make("code", { textContent: path }), ` ${operation.summary}`);
  const bodies = Object.values(operation.requestBody?.content || {});
  const answer = operation.responses["200"].content["application/json"];
  const parts = [summary, prose("p", operation.description || "")];
  parts.push(...curlLines(method.toUpperCase(), path, operation), parameterTable(operation.parameters));
  if (bodies.length) parts.push(make("h2", { textContent: "Body" }), ...bodies.flatMap((one) => fieldTables(one.schema)));
  parts.push(make("h2", { textContent: "Answers" }), answerTable(operation.responses));
  if (answer) parts.push(...fieldTables(answer.schema));
  return make("details", { id: operation.operationId }, ...parts);
}

function showRoutes() {
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const [tag] = operation.tags;
      if (!groups.has(tag)) groups.set(tag, [make("h2", { textContent: tag })]);
      groups.get(tag).push(routeElement(path, method, operation));
    }
  }
  byId("routes").replaceChildren(...[...groups.values()].flat());
}

async function askDescription() {
  const response = await fetch(`${BASE}/openapi.json`, { headers: requestHeaders() });
  byId("error").hidden = response.ok;
  if (!response.ok) {
    const failure = await failureFrom(response);
    byId("error").textContent = [failure.message, failure.details].filter(Boolean).join("\n");
    return;
  }
  api = await response.json();
  byId("about").textContent = `version ${api.info.version}`;
  byId("introduction").replaceChildren(...prose("p", api.info.description).childNodes);
  showRoutes();
}

byId("key").addEventListener("change", askDescription);
askDescription();
