// A conversation with the npm package `openai`: made, extended, read, counted and deleted.
//
// Run as `node openai_node.mjs [BASE_URL]`.

import OpenAI from "openai";

const baseURL = process.argv[2] ?? "http://127.0.0.1:8080/v1";

const client = new OpenAI({ baseURL, apiKey: "unused" });
const { conversations, responses } = client;
const conversation = await conversations.create({ metadata: { ticket: "4711" } });

// Items in the form in which the Responses API takes and gives them.
await conversations.items.create(conversation.id, {
  items: [
    { role: "user", content: "Does it rain in Oslo?" },
    { type: "function_call", call_id: "call_1", name: "weather", arguments: '{"city": "Oslo"}' },
    { type: "function_call_output", call_id: "call_1", output: "rain" },
    { role: "assistant", content: "It does." },
  ],
});

// The client asks for page after page.
for await (const item of conversations.items.list(conversation.id, { order: "asc", limit: 2 })) {
  console.log(item.type, item.type === "message" ? item.content[0].text : item.call_id);
}

const count = await responses.inputTokens.count({
  model: "gpt-5",
  conversation: conversation.id,
  input: "And in Bergen?",
});
console.log(count.input_tokens, "tokens with the next question");

await conversations.delete(conversation.id);
try {
  await conversations.retrieve(conversation.id);
} catch (error) {
  if (!(error instanceof OpenAI.NotFoundError)) throw error;
  console.log("deleted");
}
