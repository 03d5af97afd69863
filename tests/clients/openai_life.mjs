// The life of conversations by the unmodified npm package `openai`.
//
// Run as `node openai_life.mjs BASE_URL CORPUS FOLDER`, where FOLDER has the package in its node_modules. It prints the
// kinds of items that it kept, one a line, and fails at the first difference. Items with integers that JavaScript cannot
// tell apart are left out: they change before they are sent.

import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [baseURL, corpus, folder] = process.argv.slice(2);
const { OpenAI, BadRequestError, NotFoundError } = createRequire(`${folder}/`)("openai");

const PER_REQUEST = 20;

const client = new OpenAI({ baseURL, apiKey: "unused", maxRetries: 0 });
const { conversations } = client;

const user = (content) => ({ role: "user", content });

function batches(values) {
  const starts = Array.from({ length: Math.ceil(values.length / PER_REQUEST) }, (_, index) => index * PER_REQUEST);
  return starts.map((start) => values.slice(start, start + PER_REQUEST));
}

async function all(pages) {
  const found = [];
  for await (const each of pages) found.push(each);
  return found;
}

async function refusal(kind, call) {
  const error = await call().then(() => assert.fail("the call was not refused"), (error) => error);
  assert.ok(error instanceof kind, error);
  assert.match(error.requestID, /^req_/);
  return { status: error.status, code: error.code, param: error.param, type: error.type };
}

// Whether everything sent came back, beside what the server added; what is null need not.
function holds(got, sent) {
  if (sent === null || typeof sent !== "object") return got === sent;
  if (Array.isArray(sent)) return got.length === sent.length && sent.every((each, index) => holds(got[index], each));
  return Object.entries(sent).every(([key, value]) => value === null || (key in got && holds(got[key], value)));
}

async function checkConversations() {
  const created = await conversations.create({ metadata: { topic: "demo" }, items: [user("hello")] });
  assert.equal(created.object, "conversation");
  assert.deepEqual(created.metadata, { topic: "demo" });
  assert.deepEqual(await conversations.retrieve(created.id), created);
  const updated = await conversations.update(created.id, { metadata: { topic: "other" } });
  assert.deepEqual(updated, { ...created, metadata: { topic: "other" } });
  const deleted = await conversations.delete(created.id);
  assert.deepEqual(deleted, { id: created.id, object: "conversation.deleted", deleted: true });
  assert.deepEqual((await conversations.create()).metadata, {});
}

async function checkItems() {
  const { id } = await conversations.create();
  const created = await conversations.items.create(id, { items: [user("one"), user("two")] });
  const [one, two] = created.data;
  assert.deepEqual([created.first_id, created.last_id, created.has_more], [one.id, two.id, false]);
  assert.deepEqual(one.content, [{ type: "input_text", text: "one" }]);
  assert.deepEqual(await conversations.items.retrieve(one.id, { conversation_id: id }), one);
  assert.equal((await conversations.items.delete(one.id, { conversation_id: id })).id, id);
  assert.deepEqual(await all(conversations.items.list(id)), [two]);
}

async function checkPaging() {
  const { id } = await conversations.create();
  const numbers = Array.from({ length: 130 }, (_, number) => String(number));
  for (const batch of batches(numbers)) await conversations.items.create(id, { items: batch.map(user) });
  for (const [order, expected] of [["asc", numbers], ["desc", numbers.toReversed()]]) {
    for (const limit of [100, 33]) {
      const page = await conversations.items.list(id, { order, limit, include: ["reasoning.encrypted_content"] });
      assert.equal(page.data.length, limit);
      assert.ok(page.hasNextPage());
      assert.deepEqual((await all(page)).map((item) => item.content[0].text), expected);
    }
  }
  assert.equal((await all(conversations.items.list(id))).length, numbers.length);
}

async function checkErrors() {
  const { id } = await conversations.create();
  const notFound = { status: 404, code: null, param: null, type: "invalid_request_error" };
  assert.deepEqual(await refusal(NotFoundError, () => conversations.retrieve("conv_none")), notFound);
  assert.deepEqual(
    await refusal(NotFoundError, () => conversations.items.retrieve("msg_none", { conversation_id: id })),
    notFound,
  );
  assert.deepEqual(
    await refusal(NotFoundError, () => conversations.items.list(id, { after: "msg_none" })),
    { ...notFound, param: "after" },
  );
  const bad = { status: 400, type: "invalid_request_error" };
  assert.deepEqual(
    await refusal(BadRequestError, () => conversations.items.list(id, { limit: 1000 })),
    { ...bad, code: "integer_above_max_value", param: "limit" },
  );
  assert.deepEqual(
    await refusal(BadRequestError, () => conversations.items.create(id, { items: [{ type: "web_search_call" }] })),
    { ...bad, code: "missing_required_parameter", param: "items[0].id" },
  );
  const tooMany = Array(PER_REQUEST + 1).fill(user("x"));
  assert.deepEqual(
    await refusal(BadRequestError, () => conversations.items.create(id, { items: tooMany })),
    { ...bad, code: "array_above_max_length", param: "items" },
  );
}

async function checkRepeats() {
  const options = { headers: { "Idempotency-Key": "node-1" } };
  const created = await conversations.create({}, options);
  assert.deepEqual(await conversations.create({}, options), created);
  const first = await conversations.items.create(created.id, { items: [user("once")] }, options);
  assert.deepEqual((await conversations.items.create(created.id, { items: [user("once")] }, options)).data, first.data);
  assert.equal((await all(conversations.items.list(created.id))).length, 1);
}

async function checkKinds(items) {
  const { id } = await conversations.create();
  for (const batch of batches(items)) {
    const created = await conversations.items.create(id, { items: batch });
    assert.equal(created.data.length, batch.length);
  }
  const listed = await all(conversations.items.list(id, { order: "asc", limit: 100 }));
  assert.equal(listed.length, items.length);
  for (const [index, sent] of items.entries()) {
    assert.ok(holds(listed[index], sent), JSON.stringify([sent, listed[index]]));
    assert.deepEqual(await conversations.items.retrieve(sent.id, { conversation_id: id }), listed[index]);
  }
  const copy = await conversations.create();
  for (const batch of batches(listed)) await conversations.items.create(copy.id, { items: batch });
  assert.deepEqual(await all(conversations.items.list(copy.id, { order: "asc" })), listed);
  for (const item of listed) assert.equal((await conversations.items.delete(item.id, { conversation_id: id })).id, id);
  assert.deepEqual(await all(conversations.items.list(id)), []);
}

async function checkReferences(references) {
  for (const reference of references) {
    const [first, second] = [await conversations.create(), await conversations.create()];
    const sent = { ...user("referred to"), id: reference.id };
    const stored = await conversations.items.create(first.id, { items: [sent] });
    const copied = await conversations.items.create(second.id, { items: [reference] });
    assert.deepEqual(copied.data, stored.data);
  }
}

// Whether a value has no integer beyond 2^53.
function isSafe(value) {
  if (value !== null && typeof value === "object") return Object.values(value).every(isSafe);
  return !Number.isInteger(value) || Number.isSafeInteger(value);
}

const values = readFileSync(corpus, "utf8").trim().split("\n").map((line) => JSON.parse(line).value);
const items = values.filter(isSafe);
assert.ok(items.length > values.length - 5, "too many items were left out");
const isReference = (item) => item.type === "item_reference";
await checkConversations();
await checkItems();
await checkPaging();
await checkErrors();
await checkRepeats();
await checkKinds(items.filter((item) => !isReference(item)));
await checkReferences(items.filter(isReference));
console.log([...new Set(items.map((item) => item.type))].sort().join("\n"));
