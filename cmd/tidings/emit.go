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
		Use: "emit [TYPE]", Short: "Tell that something happened",
		Example: `  tidings emit user.joined_community --actor u_1 --data '{"community_id":"c_7","community_name":"Gophers"}'
  tidings emit user.posted_comment --data @comment.json
  tidings emit --file events/emit-user-joined-community.json`,
		RunE: func(c *cobra.Command, given []string) error {
			if (file == "") == (len(given) != 1) {
				return usage("tidings emit takes one event type, or --file")
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
					return usage("--data is not JSON")
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
			word := "accepted"
			if result.Duplicate {
				word = "was accepted before, under this idempotency key"
			}
			fmt.Fprintln(a.out, result.ID, word)
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&data, "data", "", "the event's data: JSON, @FILE, or - for standard input")
	f.StringVar(&r.ActorUserID, "actor", "", "who did it")
	f.StringVar(&r.IdempotencyKey, "key", "", "idempotency key: the same one twice is one event")
	f.StringVar(&r.Timestamp, "timestamp", "", "when it happened (RFC 3339); now without it")
	f.StringVar(&file, "file", "", "a file with the whole event")
	return c
}

// text reads a flag's value: as it is, @FILE, or - for standard input.
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
		Use: "events", Short: "The event types that there are", Args: args(0, "no arguments"),
		RunE: func(*cobra.Command, []string) error {
			known := catalog.Default()
			if a.json {
				return a.printJSON(known.Types())
			}
			return a.table("TYPE\tWHAT HAPPENED\tCAPTURED WHEN", func(row func(...any)) {
				for _, name := range known.Types() {
					t, _ := known.Type(name)
					row(name, t.Description, t.CapturedFrom)
				}
			})
		},
	}
	c.AddCommand(&cobra.Command{
		Use: "show TYPE", Short: "An event type's JSON Schema, with a sample", Args: args(1, "an event type"),
		RunE: func(_ *cobra.Command, given []string) error {
			t, ok := catalog.Default().Type(given[0])
			if !ok {
				return usage("%q is not an event type; the types are %s", given[0], strings.Join(catalog.Default().Types(), ", "))
			}
			_, err := a.out.Write(t.Schema)
			return err
		},
	})
	return c
}
