// Command shop is a shop's traffic for Tidings: it writes orders to a DynamoDB table, as
// the shop's own software would, and changes their status until they are shipped. It knows
// nothing of events: the capture rules in rules/ say which change is which event. The same
// seed gives the same orders. At the end it prints how many events of each type receivers
// must get.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/dynamodb"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/local"
)

func main() {
	stateDir := flag.String("state-dir", ".tidings", "directory of the local runner's state")
	aws := flag.Bool("aws", false, "write to a table in AWS, with the credentials of the environment")
	table := flag.String("table", "Orders", "table of the orders; its partition key is order_id")
	orders := flag.Int("orders", 20, "number of orders")
	pause := flag.Duration("pause", 200*time.Millisecond, "time between two changes")
	seed := flag.Uint64("seed", 1, "seed; the same seed repeats the same orders")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *stateDir, *aws, *table, *orders, *pause, *seed); err != nil {
		fmt.Fprintln(os.Stderr, "shop:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, stateDir string, inAWS bool, table string, orders int, pause time.Duration, seed uint64) error {
	if orders < 1 || orders > maxOrders || pause < 0 {
		return fmt.Errorf("-orders must be between 1 and %d, and -pause must not be negative", maxOrders)
	}
	db, err := connect(ctx, stateDir, inAWS)
	if err != nil {
		return err
	}
	// A run has its own ids, so that the next one places new orders.
	plan := planOrders(seed, orders, "o_"+strconv.FormatInt(time.Now().UnixMilli(), 36)+"_")
	shop := Shop{DB: db, Table: table}
	for i, c := range plan {
		if i > 0 {
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := shop.Write(ctx, c.Order, time.Now()); err != nil {
			return err
		}
		fmt.Printf("%s  %-9s  %s\n", c.Order.ID, c.Order.Status, cmp.Or(c.Event, "no event"))
	}
	fmt.Println()
	for _, one := range count(plan) {
		fmt.Printf("%4d  %s\n", one.events, one.eventType)
	}
	return nil
}

// connect returns the DynamoDB of AWS or of the local runner.
func connect(ctx context.Context, stateDir string, inAWS bool) (*dynamodb.Client, error) {
	if inAWS {
		access, err := awsconfig.Load(ctx, awsconfig.InCommands)
		if err != nil {
			return nil, err
		}
		return dynamodb.NewFromConfig(access), nil
	}
	runner, err := local.ReadRunnerInfo(stateDir)
	if err != nil {
		return nil, fmt.Errorf("no local runner found in %s; examples/shop/README.md says how to start one: %w", stateDir, err)
	}
	if runner.DynamoURL == "" {
		return nil, errors.New("the local runner keeps its data in memory: start it without --memory")
	}
	return runner.DynamoDB(), nil
}
