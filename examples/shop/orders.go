package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
)

// maxOrders is the maximum number of orders of a run.
const maxOrders = 100_000

// Order is an item of the table.
type Order struct {
	ID       string
	Customer string
	Status   string // placed, paid, shipped or cancelled
	Cents    int    // the total
	Items    int
	Payment  string // since it was paid
	Tracking string // since it was shipped
}

// change is one write of the shop.
type change struct {
	Order Order
	Event string // the event that it causes; "" for none
}

// planOrders returns the changes of a number of orders, so that those of an order are in
// order. Most orders are paid and shipped; some are cancelled, which is no event.
func planOrders(seed uint64, orders int, prefix string) []change {
	random := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	var waiting [][]change // by order
	for n := range orders {
		o := Order{
			ID: fmt.Sprintf("%s%d", prefix, n+1), Customer: fmt.Sprintf("c_%d", 1+random.IntN(50)), Status: "placed",
			Cents: 500 + random.IntN(20_000), Items: 1 + random.IntN(6),
		}
		steps := []change{{o, "order.placed"}}
		switch paid := random.IntN(10) > 0; {
		case !paid:
			o.Status = "cancelled"
			steps = append(steps, change{o, ""})
		default:
			o.Status, o.Payment = "paid", []string{"card", "transfer"}[random.IntN(2)]
			steps = append(steps, change{o, "order.paid"})
			o.Items++ // the shop corrects the order, and its status stays: no event
			steps = append(steps, change{o, ""})
			o.Status, o.Tracking = "shipped", fmt.Sprintf("JD%09d", random.IntN(1e9))
			steps = append(steps, change{o, "order.shipped"})
		}
		waiting = append(waiting, steps)
	}
	var plan []change
	for open := 1; len(waiting) > 0; open = min(open+1, len(waiting)) { // one more order is under way after each change
		at := random.IntN(min(open, len(waiting)))
		plan = append(plan, waiting[at][0])
		if waiting[at] = waiting[at][1:]; len(waiting[at]) == 0 {
			waiting = slices.Delete(waiting, at, at+1)
		}
	}
	return plan
}

// counted is how many events of a type a plan causes.
type counted struct {
	eventType string
	events    int
}

func count(plan []change) (list []counted) {
	all := map[string]int{}
	for _, c := range plan {
		if c.Event != "" {
			all[c.Event]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, counted{name, all[name]})
	}
	return list
}

// Shop writes orders to a table.
type Shop struct {
	DB    *dynamodb.Client
	Table string
}

// Write stores an order as it is now.
func (s Shop) Write(ctx context.Context, o Order, at time.Time) error {
	text := func(v string) types.AttributeValue { return &types.AttributeValueMemberS{Value: v} }
	number := func(format string, v ...any) types.AttributeValue {
		return &types.AttributeValueMemberN{Value: fmt.Sprintf(format, v...)}
	}
	item := map[string]types.AttributeValue{
		"order_id": text(o.ID), "status": text(o.Status), "updated_at": text(at.UTC().Format(time.RFC3339Nano)),
		"customer": &types.AttributeValueMemberM{Value: map[string]types.AttributeValue{"id": text(o.Customer)}},
		"total":    number("%d.%02d", o.Cents/100, o.Cents%100), "currency": text("EUR"), "items": number("%d", o.Items),
	}
	if o.Payment != "" {
		item["payment"] = text(o.Payment)
	}
	if o.Tracking != "" {
		item["tracking"] = text(o.Tracking)
	}
	_, err := s.DB.PutItem(ctx, &dynamodb.PutItemInput{TableName: aws.String(s.Table), Item: item})
	var missing *types.ResourceNotFoundException
	if errors.As(err, &missing) {
		return fmt.Errorf("there is no table %s: start the runner with --table %s=order_id", s.Table, s.Table)
	}
	return err
}
