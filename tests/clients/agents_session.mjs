// Keeps a session of the unmodified npm package `@openai/agents` as a conversation.
//
// Run as `node agents_session.mjs BASE_URL FOLDER`, where FOLDER has the package in its node_modules. The session
// sends items without their ids, so the gateway must run with `--ids any`. The program prints its checks, one a line,
// and fails at the first difference. The model is a substitute in this process: the package reads its answers as those
// of the API.

import assert from "node:assert/strict";
import { createRequire } from "node:module";

const [baseURL, folder] = process.argv.slice(2);

// Neither a trace nor a question to a model may leave this machine.
const { fetch } = globalThis;
globalThis.fetch = (resource, options) => {
  const url = String(resource.url ?? resource);
  if (!url.startsWith(baseURL)) console.error(`the package reached for ${url}`);
  return url.startsWith(baseURL) ? fetch(resource, options) : Promise.reject(new Error(url));
};

const load = createRequire(`${folder}/`);
const { OpenAI, NotFoundError } = load("openai");
const {
  Agent,
  OpenAIConversationsSession,
  OpenAIResponsesModel,
  applyPatchTool,
  codeInterpreterTool,
  computerTool,
  fileSearchTool,
  hostedMcpTool,
  imageGenerationTool,
  run,
  setTracingDisabled,
  shellTool,
  tool,
  webSearchTool,
} = load("@openai/agents");

const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
setTracingDisabled(true);

const PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

const NO_LISTING = { type: "http_error", code: 424, message: "The server cannot be reached." };
const HOSTED = [
  { type: "reasoning", id: "rs_js1", summary: [{ type: "summary_text", text: "Look it up." }] },
  {
    type: "web_search_call",
    id: "ws_js1",
    status: "completed",
    action: {
      type: "search",
      query: "tides",
      queries: ["tides"],
      sources: [{ type: "url", url: "https://tides.invalid" }],
    },
  },
  { type: "web_search_call", id: "ws_js2", status: "failed" },
  {
    type: "file_search_call",
    id: "fs_js1",
    status: "completed",
    queries: ["tides"],
    results: [
      { file_id: "file_1", filename: "tides.txt", score: 0.5, text: "At noon.", attributes: { day: "Monday" } },
    ],
  },
  { type: "file_search_call", id: "fs_js2", status: "completed", queries: ["tides"], results: null },
  {
    type: "code_interpreter_call",
    id: "ci_js1",
    status: "completed",
    code: "print(12)",
    container_id: "cntr_1",
    outputs: [{ type: "logs", logs: "12" }],
  },
  {
    type: "code_interpreter_call",
    id: "ci_js2",
    status: "completed",
    code: "12",
    container_id: "cntr_1",
    outputs: null,
  },
  { type: "image_generation_call", id: "ig_js1", status: "completed", result: PIXEL },
  {
    type: "mcp_list_tools",
    id: "mcpl_js1",
    server_label: "maps",
    tools: [{ name: "find", description: "Finds.", input_schema: { type: "object" }, annotations: null }],
  },
  { type: "mcp_list_tools", id: "mcpl_js2", server_label: "maps", tools: [], error: NO_LISTING },
  {
    type: "mcp_call",
    id: "mcp_js1",
    server_label: "maps",
    name: "find",
    arguments: '{"place": "harbour"}',
    output: "54.3 N",
    error: null,
    status: "completed",
    approval_request_id: null,
  },
];

// Calls that the package executes itself, and the outputs that it stores for them.
const EXECUTED = [
  {
    type: "computer_call",
    id: "cu_js1",
    call_id: "call_screen",
    status: "completed",
    action: { type: "screenshot" },
    pending_safety_checks: [],
  },
  {
    type: "function_call",
    id: "fc_js1",
    call_id: "call_tides",
    name: "tides",
    arguments: '{"day":"Monday"}',
    status: "completed",
  },
  {
    type: "shell_call",
    id: "sh_js1",
    call_id: "call_shell",
    status: "completed",
    action: { commands: ["date"], timeout_ms: 1000, max_output_length: null },
  },
  {
    type: "apply_patch_call",
    id: "apc_js1",
    call_id: "call_patch",
    status: "completed",
    operation: { type: "update_file", path: "tides.txt", diff: "-noon\n+one" },
  },
];
const OUTPUTS = [
  { type: "function_call_output", call_id: "call_tides", output: "noon on Monday" },
  { type: "computer_call_output", call_id: "call_screen", output: { image_url: `data:image/png;base64,${PIXEL}` } },
  { type: "shell_call_output", call_id: "call_shell", output: [{ stdout: "Monday", stderr: "" }] },
  { type: "apply_patch_call_output", call_id: "call_patch", output: "patched tides.txt" },
];

// The package leaves out the result of an image and the output of an MCP call, and empty lists of safety checks.
const LEFT_OUT = { image_generation_call: ["result"], mcp_call: ["output"], computer_call: ["pending_safety_checks"] };
// It keeps the ids of these kinds.
const WITH_ID = ["reasoning"];

const said = (number, text) => ({
  type: "message",
  id: `msg_js${number}`,
  role: "assistant",
  status: "completed",
  content: [{ type: "output_text", text, annotations: [], logprobs: [] }],
});

// A substitute for the Responses API: it gives prepared answers, and keeps the input of each request.
class HostedModel {
  inputs = [];

  constructor(...answers) {
    this.answers = answers;
    const openai = new OpenAI({ baseURL: "http://model.invalid/v1", apiKey: "unused", fetch: this.answer.bind(this) });
    this.model = new OpenAIResponsesModel(openai, "gpt-5");
  }

  async answer(_, { body }) {
    this.inputs.push(JSON.parse(body).input);
    const response = { object: "response", id: "resp_js", created_at: 0, model: "gpt-5", status: "completed" };
    return Response.json({ ...response, output: this.answers.shift(), tools: [], tool_choice: "auto", usage: null });
  }
}

const nothing = async () => {};
const computer = {
  environment: "browser",
  dimensions: [1, 1],
  screenshot: async () => PIXEL,
  ...Object.fromEntries(
    ["click", "doubleClick", "scroll", "type", "wait", "move", "keypress", "drag"].map((name) => [name, nothing]),
  ),
};
const shell = {
  run: async () => ({ output: [{ stdout: "Monday", stderr: "", outcome: { type: "exit", exitCode: 0 } }] }),
};
const patched = async ({ path }) => ({ status: "completed", output: `patched ${path}` });
const TOOLS = [
  webSearchTool(),
  fileSearchTool("vs_1"),
  codeInterpreterTool(),
  imageGenerationTool(),
  hostedMcpTool({ serverLabel: "maps", serverUrl: "https://maps.invalid" }),
  computerTool({ computer }),
  shellTool({ shell }),
  applyPatchTool({ editor: { createFile: patched, updateFile: patched, deleteFile: patched } }),
  tool({
    name: "tides",
    description: "Looks up the tides of a day.",
    strict: false,
    parameters: {
      type: "object",
      properties: { day: { type: "string" } },
      required: ["day"],
      additionalProperties: true,
    },
    execute: async ({ day }) => `noon on ${day}`,
  }),
];

// Whether everything sent came back, beside what the server added; what is null need not.
function holds(got, sent) {
  if (sent === null || typeof sent !== "object") return got === sent;
  if (Array.isArray(sent)) return got?.length === sent.length && sent.every((each, index) => holds(got[index], each));
  return Object.entries(sent).every(([key, value]) => value === null || (key in got && holds(got[key], value)));
}

function without(item, keys) {
  return Object.fromEntries(Object.entries(item).filter(([key]) => !keys.includes(key)));
}

// An item of the model's answer as the session stores it.
function stored(item) {
  return without(item, [...(LEFT_OUT[item.type] ?? []), ...(WITH_ID.includes(item.type) ? [] : ["id"])]);
}

async function listed(session) {
  const items = [];
  for await (const item of client.conversations.items.list(session.sessionId, { order: "asc" })) items.push(item);
  return items;
}

function assertHolds(items, expected) {
  assert.equal(items.length, expected.length, JSON.stringify(items.map(({ type }) => type)));
  for (const [index, each] of expected.entries()) {
    assert.ok(holds(items[index], each), JSON.stringify([each, items[index]], null, 1));
  }
}

const session = new OpenAIConversationsSession({ client });
const hosted = new HostedModel(
  [...HOSTED, said(1, "At noon.")],
  EXECUTED,
  [said(2, "Done.")],
  [said(3, "You are welcome.")],
);
const agent = new Agent({ name: "pilot", instructions: "Tell the tides.", model: hosted.model, tools: TOOLS });
const asked = (text) => ({ type: "message", role: "user", content: [{ type: "input_text", text }] });

// Runs a turn, and compares what the session stores of it. The package sends a turn in one request of at most 20 items.
async function checkTurn(question, answer, expected) {
  const before = await listed(session);
  const result = await run(agent, question, { session });
  assert.equal(result.finalOutput, answer.content[0].text);
  const after = await listed(session);
  assert.deepEqual(after.slice(0, before.length), before);
  assertHolds(after.slice(before.length), [asked(question), ...expected, answer].map(stored));
  assert.equal(new Set(after.map(({ id }) => id)).size, after.length);
}

const CHECKS = {
  async creation() {
    assert.equal(session.sessionId, undefined);
    assert.deepEqual(await session.getItems(), []);
    assert.equal((await client.conversations.retrieve(session.sessionId)).id, session.sessionId);
  },

  "hosted tools": () => checkTurn("When is high tide?", said(1, "At noon."), HOSTED),

  "local tools": () => checkTurn("Write that down.", said(2, "Done."), [...EXECUTED, ...OUTPUTS]),

  // The next turn asks the model with what the session keeps. The package itself leaves out a computer call: it does
  // not recognize the call's output when it reads it back.
  async history() {
    const kept = (await listed(session)).map(({ type }) => type);
    await checkTurn("Thanks!", said(3, "You are welcome."), []);
    const sent = hosted.inputs.at(-1).slice(0, -1).map(({ type }) => type ?? "message");
    assert.deepEqual(sent, kept.filter((type) => type !== "computer_call"));
  },

  async reading() {
    const items = await session.getItems();
    assert.deepEqual(items.map(({ id }) => id), (await listed(session)).map(({ id }) => id));
    for (const limit of [1, 3, items.length, items.length + 1]) {
      assert.deepEqual(await session.getItems(limit), items.slice(-limit));
    }
    assert.deepEqual(await session.getItems(0), []);
  },

  // Another session stores again what this one read.
  async replay() {
    const [items, copy] = [await session.getItems(), new OpenAIConversationsSession({ client })];
    for (let start = 0; start < items.length; start += 20) await copy.addItems(items.slice(start, start + 20));
    assertHolds(await listed(copy), (await listed(session)).map(stored));
  },

  async removal() {
    const items = await session.getItems();
    for (const item of items.toReversed()) assert.deepEqual(await session.popItem(), item);
    assert.equal(await session.popItem(), undefined);
    const { sessionId } = session;
    await session.clearSession();
    assert.equal(session.sessionId, undefined);
    await assert.rejects(client.conversations.retrieve(sessionId), NotFoundError);
    assert.deepEqual(await session.getItems(), []);
    assert.notEqual(session.sessionId, sessionId);
  },
};

for (const [name, check] of Object.entries(CHECKS)) {
  await check();
  console.log(name);
}
