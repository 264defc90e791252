// Vercel's AI SDK on all three routes: two calls, generated and streamed.
import { readFileSync } from "node:fs";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [url, key, name] = process.argv.slice(2);
const called = [];
const tools = {
  get_weather: tool({
    description: "Tells the weather.",
    inputSchema: z.object({ city: z.string() }),
    execute: async ({ city }) => {
      called.push(city);
      return `rain in ${city}`;
    },
  }),
};

function requireLoop(answer, way) {
  if (called.join() !== "Bonn,Oslo" || answer !== "It rains in Bonn and in Oslo.") {
    throw new Error(`${way}: ${JSON.stringify(called)} ${JSON.stringify(answer)}`);
  }
  called.length = 0;
}

const openai = createOpenAI({ baseURL: `${url}/v1`, apiKey: key });
const compatible = createOpenAICompatible({ name: "forklift", baseURL: `${url}/v1`, apiKey: key });
const anthropic = createAnthropic({ baseURL: `${url}/v1`, apiKey: key });
const models = {
  chat: openai.chat(name),
  "chat, compatible": compatible(name),
  responses: openai.responses(name),
  messages: anthropic(name),
};
for (const [way, model] of Object.entries(models)) {
  const asked = {
    model,
    tools,
    prompt: "Does it rain in Bonn and Oslo?",
    maxRetries: 0,
    maxOutputTokens: 300,
    stopWhen: stepCountIs(5),
    providerOptions: { openai: { store: false } },
  };
  requireLoop((await generateText(asked)).text, way);
  const failures = [];
  const streamed = streamText({ ...asked, onError: ({ error }) => failures.push(error) });
  let text = "";
  for await (const part of streamed.fullStream) {
    if (part.type === "start-step") text = "";
    if (part.type === "text-delta") text += part.text;
  }
  if (failures.length) throw failures[0];
  requireLoop(text, `${way}, streamed`);
}
const versionOf = (one) => JSON.parse(readFileSync(new URL(`node_modules/${one}/package.json`, import.meta.url))).version;
const told = [
  ["ai", ["chat", "responses", "messages"]],
  ["@ai-sdk/openai", ["chat", "responses"]],
  ["@ai-sdk/openai-compatible", ["chat"]],
  ["@ai-sdk/anthropic", ["messages"]],
];
for (const [client, routes] of told) console.log(JSON.stringify({ client, version: versionOf(client), routes }));
