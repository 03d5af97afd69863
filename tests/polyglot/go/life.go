// Life is the life of a conversation by the stubs for Go: `life ADDRESS ITEMS` prints what each step returned. ITEMS is a
// file with a ConversationItemList, as protobuf's JSON. The steps are those of life.py.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	convgrpcv1 "convgrpc.dev/gen/go/convgrpc/v1"
)

const (
	itemsPerRequest = 20
	itemsPerPage    = 7
	timeout         = 30 * time.Second
	unknownField    = 1000
)

type life struct {
	ctx           context.Context
	health        grpc_health_v1.HealthClient
	conversations convgrpcv1.ConversationsServiceClient
	inputTokens   convgrpcv1.InputTokensServiceClient
	responses     convgrpcv1.ResponsesServiceClient
	seen          map[string]any
}

func main() {
	log.SetFlags(0)
	connection, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(insecure.NewCredentials()))
	check(err)
	defer connection.Close()
	text, err := os.ReadFile(os.Args[2])
	check(err)
	var items convgrpcv1.ConversationItemList
	check(protojson.Unmarshal(text, &items))

	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	l := &life{
		ctx:           ctx,
		health:        grpc_health_v1.NewHealthClient(connection),
		conversations: convgrpcv1.NewConversationsServiceClient(connection),
		inputTokens:   convgrpcv1.NewInputTokensServiceClient(connection),
		responses:     convgrpcv1.NewResponsesServiceClient(connection),
		seen:          map[string]any{},
	}
	l.live(items.GetData())
	check(json.NewEncoder(os.Stdout).Encode(l.seen))
}

func (l *life) live(items []*convgrpcv1.ConversationItem) {
	l.seen["health"] = asJSON(must(l.health.Check(l.ctx, &grpc_health_v1.HealthCheckRequest{})))
	conversation := l.create()
	first := l.append(conversation, items)
	l.read(conversation, first)
	l.refer(first)
	l.refuse(conversation)
	l.keepUnknownFields()
	l.count()
	l.respond(conversation)
	l.delete(conversation, first)
}

func (l *life) create() string {
	request := &convgrpcv1.CreateConversationRequest{
		Metadata:  metadata(map[string]string{"topic": "ferns"}),
		RequestId: proto.String("create"),
	}
	conversation := must(l.conversations.CreateConversation(l.ctx, request))
	l.seen["created"] = asJSON(conversation)
	l.seen["created_again"] = asJSON(must(l.conversations.CreateConversation(l.ctx, request)))
	return conversation.GetId()
}

func (l *life) append(conversation string, items []*convgrpcv1.ConversationItem) string {
	var requests []*convgrpcv1.CreateItemsRequest
	for start := 0; start < len(items); start += itemsPerRequest {
		requests = append(requests, &convgrpcv1.CreateItemsRequest{
			ConversationId: conversation,
			Items:          items[start:min(start+itemsPerRequest, len(items))],
			RequestId:      proto.String(fmt.Sprintf("append-%d", len(requests))),
		})
	}
	var replies []json.RawMessage
	for _, request := range requests {
		replies = append(replies, asJSON(must(l.conversations.CreateItems(l.ctx, request))))
	}
	l.seen["appended"] = replies
	again := ids(must(l.conversations.CreateItems(l.ctx, requests[0])))
	l.seen["appended_again"] = again
	return again[0]
}

func (l *life) read(conversation, item string) {
	ascending := l.pages(conversation, convgrpcv1.Order_ORDER_ASC)
	descending := l.pages(conversation, convgrpcv1.Order_ORDER_DESC)
	l.seen["ascending"], l.seen["descending"] = ascending, descending
	l.seen["item"] = asJSON(must(l.conversations.GetItem(l.ctx, &convgrpcv1.GetItemRequest{
		ConversationId: conversation, ItemId: item,
	})))
	l.seen["items"] = asJSON(must(l.conversations.BatchGetItems(l.ctx, &convgrpcv1.BatchGetItemsRequest{
		ConversationId: conversation, ItemIds: []string{item, descending[0][0]},
	})))
	l.seen["updated"] = asJSON(must(l.conversations.UpdateConversation(l.ctx, &convgrpcv1.UpdateConversationRequest{
		ConversationId: conversation, Metadata: metadata(map[string]string{"topic": "mosses", "grown": "yes"}),
	})))
	l.seen["got"] = asJSON(must(l.get(conversation)))
	l.seen["conversations"] = asJSON(must(l.conversations.ListConversations(l.ctx, &convgrpcv1.ListConversationsRequest{
		Metadata: metadata(map[string]string{"topic": "mosses"}),
	})))
}

func (l *life) pages(conversation string, order convgrpcv1.Order) [][]string {
	request := &convgrpcv1.ListItemsRequest{
		ConversationId: conversation, Order: order, Limit: proto.Int64(itemsPerPage),
	}
	var pages [][]string
	for more := true; more; {
		page := must(l.conversations.ListItems(l.ctx, request))
		pages = append(pages, ids(page))
		request.After = page.LastId
		more = page.GetHasMore()
	}
	return pages
}

func (l *life) get(conversation string) (*convgrpcv1.Conversation, error) {
	return l.conversations.GetConversation(l.ctx, &convgrpcv1.GetConversationRequest{ConversationId: conversation})
}

func (l *life) createWith(item *convgrpcv1.ConversationItem) *convgrpcv1.ConversationItemList {
	request := &convgrpcv1.CreateConversationRequest{Items: []*convgrpcv1.ConversationItem{item}}
	created := must(l.conversations.CreateConversation(l.ctx, request))
	return must(l.conversations.ListItems(l.ctx, &convgrpcv1.ListItemsRequest{ConversationId: created.GetId()}))
}

func (l *life) refer(item string) {
	l.seen["copied"] = asJSON(l.createWith(&convgrpcv1.ConversationItem{
		Id:   proto.String(item),
		Kind: &convgrpcv1.ConversationItem_ItemReference{ItemReference: &convgrpcv1.ItemReference{}},
	}))
}

func (l *life) refuse(conversation string) {
	empty := &convgrpcv1.ConversationItem{Kind: &convgrpcv1.ConversationItem_Message{Message: &convgrpcv1.Message{}}}
	_, err := l.conversations.CreateItems(l.ctx, &convgrpcv1.CreateItemsRequest{
		ConversationId: conversation, Items: []*convgrpcv1.ConversationItem{empty},
	})
	l.seen["refused"] = refusal(err)
	_, err = l.get("conv_missing")
	l.seen["missing"] = refusal(err)
}

func (l *life) keepUnknownFields() {
	item := says(convgrpcv1.Role_ROLE_USER, "What is new?")
	field := protowire.AppendTag(nil, unknownField, protowire.BytesType)
	item.ProtoReflect().SetUnknown(protowire.AppendString(field, "new"))
	unknown := l.createWith(item).GetData()[0].ProtoReflect().GetUnknown()
	number, _, length := protowire.ConsumeTag(unknown)
	value, _ := protowire.ConsumeString(unknown[length:])
	l.seen["unknown"] = []any{number, value}
}

func (l *life) count() {
	schema := `{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}`
	function := &convgrpcv1.FunctionTool{
		Name:        "get_weather",
		Description: proto.String("Tells the weather."),
		Parameters:  &convgrpcv1.Json{Text: schema},
		Strict:      proto.Bool(true),
	}
	l.seen["counted"] = asJSON(must(l.inputTokens.CountInputTokens(l.ctx, &convgrpcv1.CountInputTokensRequest{
		Input:        &convgrpcv1.ResponseInput{Input: &convgrpcv1.ResponseInput_Text{Text: "Do ferns grow in Oslo?"}},
		Instructions: proto.String("Be brief."),
		Tools:        []*convgrpcv1.Tool{{Tool: &convgrpcv1.Tool_Function{Function: function}}},
		Models:       []string{"gpt-5", "gpt-4o", "fern-1"},
	})))
}

func (l *life) respond(conversation string) {
	recorded := must(l.responses.RecordResponse(l.ctx, &convgrpcv1.RecordResponseRequest{
		Model: proto.String("gpt-5"),
		Conversation: &convgrpcv1.ResponseConversation{Conversation: &convgrpcv1.ResponseConversation_Reference{
			Reference: &convgrpcv1.ConversationReference{Id: conversation},
		}},
		Input:     []*convgrpcv1.ConversationItem{says(convgrpcv1.Role_ROLE_USER, "Do ferns flower?")},
		Output:    []*convgrpcv1.ConversationItem{says(convgrpcv1.Role_ROLE_ASSISTANT, "They do not.")},
		Metadata:  metadata(map[string]string{"run": "1"}),
		RequestId: proto.String("respond"),
	}))
	l.seen["recorded"] = asJSON(recorded)
	get := &convgrpcv1.GetResponseRequest{ResponseId: recorded.GetId()}
	l.seen["response"] = asJSON(must(l.responses.GetResponse(l.ctx, get)))
	remove := &convgrpcv1.DeleteResponseRequest{ResponseId: recorded.GetId()}
	l.seen["response_deleted"] = asJSON(must(l.responses.DeleteResponse(l.ctx, remove)))
}

func (l *life) delete(conversation, item string) {
	ofItem := &convgrpcv1.DeleteItemRequest{ConversationId: conversation, ItemId: item}
	l.seen["item_deleted"] = asJSON(must(l.conversations.DeleteItem(l.ctx, ofItem)))
	request := &convgrpcv1.DeleteConversationRequest{ConversationId: conversation}
	l.seen["deleted"] = asJSON(must(l.conversations.DeleteConversation(l.ctx, request)))
	_, err := l.get(conversation)
	l.seen["gone"] = refusal(err)
}

func metadata(pairs map[string]string) *convgrpcv1.Metadata {
	return &convgrpcv1.Metadata{Pairs: pairs}
}

func says(role convgrpcv1.Role, text string) *convgrpcv1.ConversationItem {
	part := &convgrpcv1.ContentPart{Part: &convgrpcv1.ContentPart_OutputText{
		OutputText: &convgrpcv1.OutputText{Text: text},
	}}
	if role == convgrpcv1.Role_ROLE_USER {
		part.Part = &convgrpcv1.ContentPart_InputText{InputText: &convgrpcv1.InputText{Text: text}}
	}
	message := &convgrpcv1.Message{Role: role, Content: []*convgrpcv1.ContentPart{part}}
	return &convgrpcv1.ConversationItem{Kind: &convgrpcv1.ConversationItem_Message{Message: message}}
}

// refusal is how a call is refused: its code, and what the details of the status tell.
func refusal(err error) map[string]any {
	refused, ok := status.FromError(err)
	if err == nil || !ok {
		log.Fatalf("the call was not refused: %v", err)
	}
	var info *errdetails.ErrorInfo
	fields := []string{}
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			info = detail
		case *errdetails.BadRequest:
			for _, violation := range detail.GetFieldViolations() {
				fields = append(fields, violation.GetField())
			}
		}
	}
	return map[string]any{
		"code":    refused.Code(),
		"message": refused.Message(),
		"reason":  info.GetReason(),
		"param":   info.GetMetadata()["param"],
		"fields":  fields,
	}
}

func ids(list *convgrpcv1.ConversationItemList) []string {
	var ids []string
	for _, item := range list.GetData() {
		ids = append(ids, item.GetId())
	}
	return ids
}

func asJSON(message proto.Message) json.RawMessage {
	return must(protojson.Marshal(message))
}

func must[T any](value T, err error) T {
	check(err)
	return value
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
