// Calls everything for conversations and token counts that the unmodified npm package `openai` offers.
//
// Run as `node openai_calls.mjs BASE_URL FOLDER`, where FOLDER has the package in its node_modules. Each method is
// called without its optional parameters, with all of them, and with a path that the server does not have. The program
// prints the methods, one a line. It fails at the first wrong answer.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [baseURL, folder] = process.argv.slice(2);
const { OpenAI, BadRequestError, NotFoundError } = createRequire(`${folder}/`)("openai");

const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const { conversations, responses, beta } = client;

const MESSAGE = { type: "message", role: "user", phase: "commentary", content: "When is high tide?" };
const METADATA = { topic: "tides" };
const INCLUDE = [
  "file_search_call.results",
  "web_search_call.results",
  "web_search_call.action.sources",
  "message.input_image.image_url",
  "computer_call_output.output.image_url",
  "code_interpreter_call.outputs",
  "reasoning.encrypted_content",
  "message.output_text.logprobs",
];
const TOOL = {
  type: "function",
  name: "tides",
  description: "Looks up the tides of a day.",
  parameters: { type: "object", properties: { day: { type: "string" } } },
  output_schema: { type: "object", properties: { high: { type: "string" } } },
  strict: true,
  allowed_callers: ["direct"],
  defer_loading: true,
};
// All that a count takes, but for what it continues: a conversation or an earlier response.
const COUNTED = {
  model: "gpt-5",
  input: "And low tide?",
  instructions: "Be brief.",
  parallel_tool_calls: true,
  personality: "friendly",
  reasoning: { context: "auto", effort: "none", generate_summary: "auto", mode: "standard", summary: "auto" },
  text: { format: { type: "text" }, verbosity: "low" },
  tool_choice: "none",
  tools: [TOOL],
  truncation: "auto",
};
const BETA = { tools: [{ ...TOOL, async: true }], betas: ["responses_multi_agent=v1"] };

// Awaits a call in the three ways that the package offers, which give the same response. Returns its value.
async function answered(call) {
  const raw = await call.asResponse();
  assert.ok(raw instanceof Response);
  assert.equal(raw.status, 200);
  const value = await call;
  const { data, response, request_id } = await call.withResponse();
  assert.equal(data, value);
  assert.equal(response, raw);
  assert.match(request_id, /^req_/);
  return value;
}

async function refused(call, kind, status) {
  const error = await call.then(() => assert.fail("the call was not refused"), (error) => error);
  assert.ok(error instanceof kind, error);
  assert.equal(error.status, status);
  assert.equal(error.type, "invalid_request_error");
  return error;
}

const notFound = (call) => refused(call, NotFoundError, 404);
const UNKNOWN_PATH = { path: "/no/such/path" };

async function created() {
  const conversation = await conversations.create({ items: [MESSAGE] });
  const { data } = await conversations.items.list(conversation.id);
  return [conversation.id, data[0].id];
}

const CHECKS = {
  async "conversations.create"() {
    assert.deepEqual((await answered(conversations.create())).metadata, {});
    const full = { items: [MESSAGE], metadata: METADATA };
    const conversation = await answered(conversations.create(full));
    assert.deepEqual(conversation.metadata, METADATA);
    const { data } = await conversations.items.list(conversation.id);
    assert.deepEqual(data.map(({ phase }) => phase), ["commentary"]);
    await notFound(conversations.create(full, UNKNOWN_PATH));
  },

  async "conversations.retrieve"() {
    const [id] = await created();
    assert.equal((await answered(conversations.retrieve(id))).id, id);
    await notFound(conversations.retrieve(id, UNKNOWN_PATH));
  },

  async "conversations.update"() {
    const [id] = await created();
    assert.deepEqual((await answered(conversations.update(id, { metadata: METADATA }))).metadata, METADATA);
    await notFound(conversations.update(id, { metadata: METADATA }, UNKNOWN_PATH));
  },

  async "conversations.delete"() {
    const [id] = await created();
    assert.equal((await answered(conversations.delete(id))).deleted, true);
    await notFound(conversations.delete(id, UNKNOWN_PATH));
  },

  async "conversations.items.create"() {
    const [id] = await created();
    for (const more of [{}, { include: INCLUDE }]) {
      const list = await answered(conversations.items.create(id, { items: [MESSAGE], ...more }));
      assert.equal(list.object, "list");
      assert.deepEqual(list.data.map(({ content }) => content[0].text), [MESSAGE.content]);
    }
    await notFound(conversations.items.create(id, { items: [MESSAGE], include: INCLUDE }, UNKNOWN_PATH));
  },

  async "conversations.items.retrieve"() {
    const [id, item] = await created();
    for (const more of [{}, { include: INCLUDE }]) {
      const found = await answered(conversations.items.retrieve(item, { conversation_id: id, ...more }));
      assert.equal(found.id, item);
    }
    await notFound(conversations.items.retrieve(item, { conversation_id: id }, UNKNOWN_PATH));
  },

  async "conversations.items.list"() {
    const [id, first] = await created();
    const { first_id: second } = await conversations.items.create(id, { items: [MESSAGE] });
    const every = await answered(conversations.items.list(id));
    assert.deepEqual(every.data.map((item) => item.id), [second, first]);
    const full = { after: first, include: INCLUDE, limit: 1, order: "asc" };
    const page = await answered(conversations.items.list(id, full));
    assert.deepEqual([page.data.map((item) => item.id), page.hasNextPage()], [[second], false]);
    await notFound(conversations.items.list(id, full, UNKNOWN_PATH));
  },

  async "conversations.items.delete"() {
    const [id, item] = await created();
    assert.equal((await answered(conversations.items.delete(item, { conversation_id: id }))).id, id);
    await notFound(conversations.items.delete(item, { conversation_id: id }, UNKNOWN_PATH));
  },

  "responses.inputTokens.count": () => checkCount(responses.inputTokens, {}),
  "beta.responses.inputTokens.count": () => checkCount(beta.responses.inputTokens, BETA),
};

async function checkCount(inputTokens, more) {
  const empty = await answered(inputTokens.count());
  assert.equal(empty.object, "response.input_tokens");
  const alone = await answered(inputTokens.count({ ...COUNTED, ...more }));
  assert.ok(alone.input_tokens > empty.input_tokens);

  // The hosted API records a response when it makes one. Here the caller records it.
  const recorded = await client.post("/x/responses", { body: { model: "gpt-5", input: [MESSAGE] } });
  const [conversation] = await created();
  const history = [{ conversation }, { conversation: { id: conversation } }, { previous_response_id: recorded.id }];
  const counts = [];
  for (const each of history) {
    const count = await answered(inputTokens.count({ ...COUNTED, ...more, ...each }));
    counts.push(count.input_tokens);
  }
  assert.ok(counts[0] > alone.input_tokens);
  assert.deepEqual(counts, Array(history.length).fill(counts[0]));

  const both = { ...COUNTED, ...more, conversation, previous_response_id: recorded.id };
  await refused(inputTokens.count(both), BadRequestError, 400);
  await notFound(inputTokens.count(both, UNKNOWN_PATH));
}

for (const [method, check] of Object.entries(CHECKS)) {
  await check();
  console.log(method);
}
