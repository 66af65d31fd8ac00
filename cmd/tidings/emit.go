package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/emit"
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
				in := json.NewDecoder(bytes.NewReader(text))
				in.DisallowUnknownFields() // a misspelt idempotency_key would be ignored
				if err := in.Decode(&r); err != nil {
					return fmt.Errorf("%s: %w", file, err)
				}
				if _, err := in.Token(); !errors.Is(err, io.EOF) {
					return fmt.Errorf("%s: holds more than one event: publish lists by invoking emit", file)
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
	f.IntVar(&r.Version, "version", 0, "version of the event type that the data is of (default: the newest that fits)")
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
