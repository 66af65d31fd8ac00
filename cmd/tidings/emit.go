package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/emit"
	"github.com/tidings-dev/tidings/pkg/event/catalog"
)

func (a *app) emitCommand() *cobra.Command {
	var r emit.Request
	var data, file string
	c := &cobra.Command{
		Use: "emit [TYPE]", Short: "Publish an event",
		Example: `  tidings emit user.joined_community --actor u_1 --data '{"community_id":"c_7","community_name":"Gophers"}'
  tidings emit user.posted_comment --data @comment.json
  tidings emit --file events/emit-user-joined-community.json`,
		RunE: func(c *cobra.Command, given []string) error {
			if (file == "") == (len(given) != 1) {
				return usagef("tidings emit takes one event type, or --file")
			}
			if file != "" {
				text, err := a.text("@" + file)
				if err != nil {
					return err
				}
				if err := json.Unmarshal(text, &r); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
			} else {
				text, err := a.text(data)
				if err != nil {
					return err
				}
				r.Event, r.Data = given[0], text
				if len(text) > 0 && !json.Valid(text) {
					return usagef("--data is not valid JSON")
				}
			}
			if r.Tenant == "" {
				r.Tenant = a.tenant
			}
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			var result emit.Result
			if err := t.invoke(c.Context(), "emit", r, &result); err != nil {
				return err
			}
			if a.json {
				return a.printJSON(result)
			}
			status := "accepted"
			if result.Duplicate {
				status = "duplicate: already accepted with this idempotency key"
			}
			fmt.Fprintln(a.out, result.ID, status)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", "", "event data: JSON, @FILE, or - for standard input")
	f.StringVar(&r.ActorUserID, "actor", "", "id of the user who caused the event")
	f.StringVar(&r.IdempotencyKey, "key", "", "idempotency key: publishing again with the same key creates no second event")
	f.StringVar(&r.Timestamp, "timestamp", "", "time of the event, RFC 3339 (default: now)")
	f.StringVar(&file, "file", "", "file with the complete event as JSON")
	return c
}

// text returns a flag's value, or the contents of @FILE, or standard input for "-".
func (a *app) text(value string) ([]byte, error) {
	if path, ok := strings.CutPrefix(value, "@"); ok {
		return os.ReadFile(path)
	}
	if value == "-" {
		return io.ReadAll(a.in)
	}
	return []byte(value), nil
}

func (a *app) eventsCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "events", Short: "List the event types", Args: args(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			known := catalog.Default()
			if a.json {
				return a.printJSON(known.Types())
			}
			return a.table("TYPE\tDESCRIPTION\tCAPTURED FROM", func(row func(...any)) {
				for _, name := range known.Types() {
					t, _ := known.Type(name)
					row(name, t.Description, t.CapturedFrom)
				}
			})
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "show TYPE", Short: "Print an event type's JSON Schema, with examples", Args: args(1, "an event type"),
		RunE: func(_ *cobra.Command, given []string) error {
			t, ok := catalog.Default().Type(given[0])
			if !ok {
				return usagef("%q is not an event type; the event types are %s", given[0], strings.Join(catalog.Default().Types(), ", "))
			}
			_, err := a.out.Write(t.Schema)
			return err
		},
	})
	return c
}
