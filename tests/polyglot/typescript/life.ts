// The life of a conversation by the stubs for TypeScript: `node life.js ADDRESS ITEMS` prints what each step returned.
// ITEMS is a file with a ConversationItemList, as protobuf's JSON. The steps are those of life.py.

import { readFileSync } from "node:fs";
import { create, createFileRegistry, fromJson, fromJsonString, toJson } from "@bufbuild/protobuf";
import type { DescMessage, DescMethodUnary, JsonValue, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
import { WireType } from "@bufbuild/protobuf/wire";
import { FileDescriptorSetSchema } from "@bufbuild/protobuf/wkt";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport, Http2SessionManager } from "@connectrpc/connect-node";

import type { Conversation } from "./gen/typescript/convgrpc/v1/conversation_pb.js";
import { ConversationSchema, DeletedConversationSchema } from "./gen/typescript/convgrpc/v1/conversation_pb.js";
import {
  ConversationItemListSchema,
  ConversationListSchema,
  ConversationsService,
  Order,
} from "./gen/typescript/convgrpc/v1/conversations_service_pb.js";
import type { ConversationItemList } from "./gen/typescript/convgrpc/v1/conversations_service_pb.js";
import { InputTokenCountSchema, InputTokensService } from "./gen/typescript/convgrpc/v1/input_tokens_service_pb.js";
import type { ConversationItem } from "./gen/typescript/convgrpc/v1/item_pb.js";
import { ConversationItemSchema, Role } from "./gen/typescript/convgrpc/v1/item_pb.js";
import { DeletedResponseSchema, ResponseSchema, ResponsesService } from "./gen/typescript/convgrpc/v1/responses_service_pb.js";
import { BadRequestSchema, ErrorInfoSchema } from "./gen/typescript/google/rpc/error_details_pb.js";

const ITEMS_PER_REQUEST = 20;
const ITEMS_PER_PAGE = 7n;
const TIMEOUT_MS = 30_000;
const UNKNOWN_FIELD = 1000;

// The part of gRPC's health checks that is needed: no package has it in the form of the stubs.
const HEALTH = fromJson(FileDescriptorSetSchema, {
  file: [
    {
      name: "grpc/health/v1/health.proto",
      package: "grpc.health.v1",
      syntax: "proto3",
      messageType: [
        { name: "HealthCheckRequest" },
        {
          name: "HealthCheckResponse",
          field: [
            {
              name: "status",
              jsonName: "status",
              number: 1,
              label: "LABEL_OPTIONAL",
              type: "TYPE_ENUM",
              typeName: ".grpc.health.v1.HealthCheckResponse.ServingStatus",
            },
          ],
          enumType: [{ name: "ServingStatus", value: [{ name: "UNKNOWN", number: 0 }, { name: "SERVING", number: 1 }] }],
        },
      ],
      service: [
        {
          name: "Health",
          method: [
            {
              name: "Check",
              inputType: ".grpc.health.v1.HealthCheckRequest",
              outputType: ".grpc.health.v1.HealthCheckResponse",
            },
          ],
        },
      ],
    },
  ],
});

const [address, file] = process.argv.slice(2);
const baseUrl = `http://${address}`;
const sessionManager = new Http2SessionManager(baseUrl);
const transport = createGrpcTransport({ baseUrl, sessionManager, defaultTimeoutMs: TIMEOUT_MS });
const conversations = createClient(ConversationsService, transport);
const inputTokens = createClient(InputTokensService, transport);
const responses = createClient(ResponsesService, transport);

const seen: Record<string, JsonValue> = {};

async function see<Schema extends DescMessage>(step: string, schema: Schema, call: Promise<MessageShape<Schema>>) {
  const message = await call;
  seen[step] = toJson(schema, message);
  return message;
}

async function live(items: ConversationItem[]) {
  await checkHealth();
  const conversation = await createConversation();
  const first = await append(conversation, items);
  await read(conversation, first);
  await refer(first);
  await refuse(conversation);
  await keepUnknownFields();
  await count();
  await respond(conversation);
  await remove(conversation, first);
}

async function checkHealth() {
  const check = createFileRegistry(HEALTH).getService("grpc.health.v1.Health")!.method.check as DescMethodUnary;
  const { message } = await transport.unary(check, undefined, TIMEOUT_MS, undefined, {});
  seen.health = toJson(check.output, message);
}

async function createConversation() {
  const request = { metadata: { pairs: { topic: "ferns" } }, requestId: "create" };
  const conversation = await see("created", ConversationSchema, conversations.createConversation(request));
  await see("created_again", ConversationSchema, conversations.createConversation(request));
  return conversation.id;
}

async function append(conversationId: string, items: ConversationItem[]) {
  const starts = Array.from({ length: Math.ceil(items.length / ITEMS_PER_REQUEST) }, (_, n) => n * ITEMS_PER_REQUEST);
  const requests = starts.map((start, number) => ({
    conversationId,
    items: items.slice(start, start + ITEMS_PER_REQUEST),
    requestId: `append-${number}`,
  }));
  const replies: JsonValue[] = [];
  for (const request of requests) {
    replies.push(toJson(ConversationItemListSchema, await conversations.createItems(request)));
  }
  seen.appended = replies;
  const again = ids(await conversations.createItems(requests[0]!));
  seen.appended_again = again;
  return again[0]!;
}

async function read(conversationId: string, itemId: string) {
  const descending = await pages(conversationId, Order.DESC);
  seen.ascending = await pages(conversationId, Order.ASC);
  seen.descending = descending;
  await see("item", ConversationItemSchema, conversations.getItem({ conversationId, itemId }));
  const itemIds = [itemId, descending[0]![0]!];
  await see("items", ConversationItemListSchema, conversations.batchGetItems({ conversationId, itemIds }));
  const metadata = { pairs: { topic: "mosses", grown: "yes" } };
  await see("updated", ConversationSchema, conversations.updateConversation({ conversationId, metadata }));
  await see("got", ConversationSchema, get(conversationId));
  const query = { metadata: { pairs: { topic: "mosses" } } };
  await see("conversations", ConversationListSchema, conversations.listConversations(query));
}

async function pages(conversationId: string, order: Order) {
  const found: string[][] = [];
  let after: string | undefined;
  let more = true;
  while (more) {
    const page = await conversations.listItems({ conversationId, order, limit: ITEMS_PER_PAGE, after });
    found.push(ids(page));
    after = page.lastId;
    more = page.hasMore;
  }
  return found;
}

function get(conversationId: string): Promise<Conversation> {
  return conversations.getConversation({ conversationId });
}

async function createWith(item: MessageInitShape<typeof ConversationItemSchema>) {
  const { id } = await conversations.createConversation({ items: [item] });
  return conversations.listItems({ conversationId: id });
}

async function refer(id: string) {
  const reference = { id, kind: { case: "itemReference" as const, value: {} } };
  await see("copied", ConversationItemListSchema, createWith(reference));
}

async function refuse(conversationId: string) {
  const items = [{ kind: { case: "message" as const, value: {} } }];
  seen.refused = await refusal(conversations.createItems({ conversationId, items }));
  seen.missing = await refusal(get("conv_missing"));
}

async function keepUnknownFields() {
  const item = create(ConversationItemSchema, says(Role.USER, "What is new?"));
  const data = Buffer.from("\x03new");
  item.$unknown = [{ no: UNKNOWN_FIELD, wireType: WireType.LengthDelimited, data }];
  const list = await createWith(item);
  const field = list.data[0]!.$unknown![0]!;
  seen.unknown = [field.no, Buffer.from(field.data.subarray(1)).toString()];
}

async function count() {
  const parameters = { text: '{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}' };
  const weather = { name: "get_weather", description: "Tells the weather.", parameters, strict: true };
  const call = inputTokens.countInputTokens({
    input: { input: { case: "text", value: "Do ferns grow in Oslo?" } },
    instructions: "Be brief.",
    tools: [{ tool: { case: "function", value: weather } }],
    models: ["gpt-5", "gpt-4o", "fern-1"],
  });
  await see("counted", InputTokenCountSchema, call);
}

async function respond(conversationId: string) {
  const call = responses.recordResponse({
    model: "gpt-5",
    conversation: { conversation: { case: "reference", value: { id: conversationId } } },
    input: [says(Role.USER, "Do ferns flower?")],
    output: [says(Role.ASSISTANT, "They do not.")],
    metadata: { pairs: { run: "1" } },
    requestId: "respond",
  });
  const { id: responseId } = await see("recorded", ResponseSchema, call);
  await see("response", ResponseSchema, responses.getResponse({ responseId }));
  await see("response_deleted", DeletedResponseSchema, responses.deleteResponse({ responseId }));
}

async function remove(conversationId: string, itemId: string) {
  await see("item_deleted", ConversationSchema, conversations.deleteItem({ conversationId, itemId }));
  await see("deleted", DeletedConversationSchema, conversations.deleteConversation({ conversationId }));
  seen.gone = await refusal(get(conversationId));
}

function says(role: Role, text: string): MessageInitShape<typeof ConversationItemSchema> {
  const part = role === Role.USER ? ("inputText" as const) : ("outputText" as const);
  return { kind: { case: "message", value: { role, content: [{ part: { case: part, value: { text } } }] } } };
}

// How a call is refused: its code, and what the details of the status tell.
async function refusal(call: Promise<unknown>): Promise<JsonValue> {
  const error: unknown = await call.then(() => undefined, (reason: unknown) => reason);
  if (!(error instanceof ConnectError)) throw new Error("the call was not refused", { cause: error });
  const [info] = error.findDetails(ErrorInfoSchema);
  const faults = error.findDetails(BadRequestSchema);
  return {
    code: error.code,
    message: error.rawMessage,
    reason: info?.reason ?? "",
    param: info?.metadata.param ?? "",
    fields: faults.flatMap((fault) => fault.fieldViolations.map((violation) => violation.field)),
  };
}

function ids(list: ConversationItemList) {
  return list.data.map((item) => item.id!);
}

await live(fromJsonString(ConversationItemListSchema, readFileSync(file!, "utf8")).data);
sessionManager.abort();
console.log(JSON.stringify(seen));
