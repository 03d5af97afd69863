import com.google.gson.Gson;
import com.google.gson.JsonParser;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.MessageOrBuilder;
import com.google.protobuf.UnknownFieldSet;
import com.google.protobuf.util.JsonFormat;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import dev.convgrpc.v1.BatchGetItemsRequest;
import dev.convgrpc.v1.ContentPart;
import dev.convgrpc.v1.Conversation;
import dev.convgrpc.v1.ConversationItem;
import dev.convgrpc.v1.ConversationItemList;
import dev.convgrpc.v1.ConversationReference;
import dev.convgrpc.v1.ConversationsServiceGrpc;
import dev.convgrpc.v1.CountInputTokensRequest;
import dev.convgrpc.v1.CreateConversationRequest;
import dev.convgrpc.v1.CreateItemsRequest;
import dev.convgrpc.v1.DeleteConversationRequest;
import dev.convgrpc.v1.DeleteItemRequest;
import dev.convgrpc.v1.DeleteResponseRequest;
import dev.convgrpc.v1.FunctionTool;
import dev.convgrpc.v1.GetConversationRequest;
import dev.convgrpc.v1.GetItemRequest;
import dev.convgrpc.v1.GetResponseRequest;
import dev.convgrpc.v1.InputText;
import dev.convgrpc.v1.InputTokensServiceGrpc;
import dev.convgrpc.v1.ItemReference;
import dev.convgrpc.v1.Json;
import dev.convgrpc.v1.ListConversationsRequest;
import dev.convgrpc.v1.ListItemsRequest;
import dev.convgrpc.v1.Message;
import dev.convgrpc.v1.Metadata;
import dev.convgrpc.v1.Order;
import dev.convgrpc.v1.OutputText;
import dev.convgrpc.v1.RecordResponseRequest;
import dev.convgrpc.v1.ResponseConversation;
import dev.convgrpc.v1.ResponseInput;
import dev.convgrpc.v1.ResponsesServiceGrpc;
import dev.convgrpc.v1.Role;
import dev.convgrpc.v1.Tool;
import dev.convgrpc.v1.UpdateConversationRequest;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.StatusRuntimeException;
import io.grpc.health.v1.HealthCheckRequest;
import io.grpc.health.v1.HealthGrpc;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;

/**
 * The life of a conversation by the stubs for Java: {@code Life ADDRESS ITEMS} prints what each step returned. ITEMS is a
 * file with a ConversationItemList, as protobuf's JSON. The steps are those of life.py.
 */
public final class Life {
  private static final int ITEMS_PER_REQUEST = 20;
  private static final int ITEMS_PER_PAGE = 7;
  private static final int TIMEOUT_SECONDS = 30;
  private static final int UNKNOWN_FIELD = 1000;

  private final HealthGrpc.HealthBlockingStub health;
  private final ConversationsServiceGrpc.ConversationsServiceBlockingStub conversations;
  private final InputTokensServiceGrpc.InputTokensServiceBlockingStub inputTokens;
  private final ResponsesServiceGrpc.ResponsesServiceBlockingStub responses;
  private final Map<String, Object> seen = new LinkedHashMap<>();

  public static void main(String[] arguments) throws IOException {
    ManagedChannel channel = Grpc.newChannelBuilder(arguments[0], InsecureChannelCredentials.create()).build();
    ConversationItemList.Builder items = ConversationItemList.newBuilder();
    JsonFormat.parser().merge(Files.readString(Path.of(arguments[1])), items);
    Life life = new Life(channel);
    life.live(items.getDataList());
    channel.shutdown();
    System.out.println(new Gson().toJson(life.seen));
  }

  private Life(ManagedChannel channel) {
    health = HealthGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    conversations =
        ConversationsServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    inputTokens = InputTokensServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
    responses = ResponsesServiceGrpc.newBlockingStub(channel).withDeadlineAfter(TIMEOUT_SECONDS, TimeUnit.SECONDS);
  }

  private void live(List<ConversationItem> items) throws InvalidProtocolBufferException {
    see("health", health.check(HealthCheckRequest.getDefaultInstance()));
    String conversation = create();
    String first = append(conversation, items);
    read(conversation, first);
    refer(first);
    refuse(conversation);
    keepUnknownFields();
    count();
    respond(conversation);
    delete(conversation, first);
  }

  private String create() throws InvalidProtocolBufferException {
    CreateConversationRequest request =
        CreateConversationRequest.newBuilder()
            .setMetadata(metadata(Map.of("topic", "ferns")))
            .setRequestId("create")
            .build();
    Conversation conversation = conversations.createConversation(request);
    see("created", conversation);
    see("created_again", conversations.createConversation(request));
    return conversation.getId();
  }

  private String append(String conversation, List<ConversationItem> items) throws InvalidProtocolBufferException {
    List<CreateItemsRequest> requests = new ArrayList<>();
    for (int start = 0; start < items.size(); start += ITEMS_PER_REQUEST) {
      requests.add(
          CreateItemsRequest.newBuilder()
              .setConversationId(conversation)
              .addAllItems(items.subList(start, Math.min(start + ITEMS_PER_REQUEST, items.size())))
              .setRequestId("append-" + requests.size())
              .build());
    }
    List<Object> replies = new ArrayList<>();
    for (CreateItemsRequest request : requests) {
      replies.add(json(conversations.createItems(request)));
    }
    seen.put("appended", replies);
    List<String> again = ids(conversations.createItems(requests.get(0)));
    seen.put("appended_again", again);
    return again.get(0);
  }

  private void read(String conversation, String item) throws InvalidProtocolBufferException {
    List<List<String>> descending = pages(conversation, Order.ORDER_DESC);
    seen.put("ascending", pages(conversation, Order.ORDER_ASC));
    seen.put("descending", descending);
    see(
        "item",
        conversations.getItem(GetItemRequest.newBuilder().setConversationId(conversation).setItemId(item).build()));
    see(
        "items",
        conversations.batchGetItems(
            BatchGetItemsRequest.newBuilder()
                .setConversationId(conversation)
                .addItemIds(item)
                .addItemIds(descending.get(0).get(0))
                .build()));
    see(
        "updated",
        conversations.updateConversation(
            UpdateConversationRequest.newBuilder()
                .setConversationId(conversation)
                .setMetadata(metadata(Map.of("topic", "mosses", "grown", "yes")))
                .build()));
    see("got", get(conversation));
    see(
        "conversations",
        conversations.listConversations(
            ListConversationsRequest.newBuilder().setMetadata(metadata(Map.of("topic", "mosses"))).build()));
  }

  private List<List<String>> pages(String conversation, Order order) {
    ListItemsRequest.Builder request =
        ListItemsRequest.newBuilder().setConversationId(conversation).setOrder(order).setLimit(ITEMS_PER_PAGE);
    List<List<String>> pages = new ArrayList<>();
    boolean more = true;
    while (more) {
      ConversationItemList page = conversations.listItems(request.build());
      pages.add(ids(page));
      request.setAfter(page.getLastId());
      more = page.getHasMore();
    }
    return pages;
  }

  private Conversation get(String conversation) {
    return conversations.getConversation(
        GetConversationRequest.newBuilder().setConversationId(conversation).build());
  }

  private ConversationItemList createWith(ConversationItem item) {
    Conversation created =
        conversations.createConversation(CreateConversationRequest.newBuilder().addItems(item).build());
    return conversations.listItems(ListItemsRequest.newBuilder().setConversationId(created.getId()).build());
  }

  private void refer(String item) throws InvalidProtocolBufferException {
    ItemReference reference = ItemReference.getDefaultInstance();
    see("copied", createWith(ConversationItem.newBuilder().setId(item).setItemReference(reference).build()));
  }

  private void refuse(String conversation) throws InvalidProtocolBufferException {
    ConversationItem empty = ConversationItem.newBuilder().setMessage(Message.getDefaultInstance()).build();
    CreateItemsRequest request =
        CreateItemsRequest.newBuilder().setConversationId(conversation).addItems(empty).build();
    seen.put("refused", refusal(() -> conversations.createItems(request)));
    seen.put("missing", refusal(() -> get("conv_missing")));
  }

  private void keepUnknownFields() {
    UnknownFieldSet.Field field =
        UnknownFieldSet.Field.newBuilder().addLengthDelimited(ByteString.copyFromUtf8("new")).build();
    ConversationItem item =
        says(Role.ROLE_USER, "What is new?").toBuilder()
            .setUnknownFields(UnknownFieldSet.newBuilder().addField(UNKNOWN_FIELD, field).build())
            .build();
    createWith(item)
        .getData(0)
        .getUnknownFields()
        .asMap()
        .forEach(
            (number, kept) ->
                seen.put("unknown", List.of(number, kept.getLengthDelimitedList().get(0).toStringUtf8())));
  }

  private void count() throws InvalidProtocolBufferException {
    String schema = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},\"required\":[\"city\"]}";
    FunctionTool function =
        FunctionTool.newBuilder()
            .setName("get_weather")
            .setDescription("Tells the weather.")
            .setParameters(Json.newBuilder().setText(schema))
            .setStrict(true)
            .build();
    see(
        "counted",
        inputTokens.countInputTokens(
            CountInputTokensRequest.newBuilder()
                .setInput(ResponseInput.newBuilder().setText("Do ferns grow in Oslo?"))
                .setInstructions("Be brief.")
                .addTools(Tool.newBuilder().setFunction(function))
                .addAllModels(List.of("gpt-5", "gpt-4o", "fern-1"))
                .build()));
  }

  private void respond(String conversation) throws InvalidProtocolBufferException {
    ConversationReference reference = ConversationReference.newBuilder().setId(conversation).build();
    String response =
        see(
                "recorded",
                responses.recordResponse(
                    RecordResponseRequest.newBuilder()
                        .setModel("gpt-5")
                        .setConversation(ResponseConversation.newBuilder().setReference(reference))
                        .addInput(says(Role.ROLE_USER, "Do ferns flower?"))
                        .addOutput(says(Role.ROLE_ASSISTANT, "They do not."))
                        .setMetadata(metadata(Map.of("run", "1")))
                        .setRequestId("respond")
                        .build()))
            .getId();
    see("response", responses.getResponse(GetResponseRequest.newBuilder().setResponseId(response).build()));
    see(
        "response_deleted",
        responses.deleteResponse(DeleteResponseRequest.newBuilder().setResponseId(response).build()));
  }

  private void delete(String conversation, String item) throws InvalidProtocolBufferException {
    see(
        "item_deleted",
        conversations.deleteItem(
            DeleteItemRequest.newBuilder().setConversationId(conversation).setItemId(item).build()));
    see(
        "deleted",
        conversations.deleteConversation(
            DeleteConversationRequest.newBuilder().setConversationId(conversation).build()));
    seen.put("gone", refusal(() -> get(conversation)));
  }

  private static Metadata metadata(Map<String, String> pairs) {
    return Metadata.newBuilder().putAllPairs(pairs).build();
  }

  private static ConversationItem says(Role role, String text) {
    ContentPart.Builder part = ContentPart.newBuilder();
    if (role == Role.ROLE_USER) {
      part.setInputText(InputText.newBuilder().setText(text));
    } else {
      part.setOutputText(OutputText.newBuilder().setText(text));
    }
    Message message = Message.newBuilder().setRole(role).addContent(part).build();
    return ConversationItem.newBuilder().setMessage(message).build();
  }

  /** How a call is refused: its code, and what the details of the status tell. */
  private static Map<String, Object> refusal(Runnable call) throws InvalidProtocolBufferException {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      com.google.rpc.Status status = StatusProto.fromThrowable(error);
      ErrorInfo info = ErrorInfo.getDefaultInstance();
      List<String> fields = new ArrayList<>();
      for (Any detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          info = detail.unpack(ErrorInfo.class);
        } else if (detail.is(BadRequest.class)) {
          detail.unpack(BadRequest.class).getFieldViolationsList().forEach(each -> fields.add(each.getField()));
        }
      }
      return Map.of(
          "code", status.getCode(),
          "message", status.getMessage(),
          "reason", info.getReason(),
          "param", info.getMetadataOrDefault("param", ""),
          "fields", fields);
    }
    throw new AssertionError("the call was not refused");
  }

  private static List<String> ids(ConversationItemList list) {
    return list.getDataList().stream().map(ConversationItem::getId).toList();
  }

  private <T extends MessageOrBuilder> T see(String step, T message) throws InvalidProtocolBufferException {
    seen.put(step, json(message));
    return message;
  }

  private static Object json(MessageOrBuilder message) throws InvalidProtocolBufferException {
    return JsonParser.parseString(JsonFormat.printer().print(message));
  }
}
