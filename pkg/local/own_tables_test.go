package local_test

import (
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tidings-dev/tidings/pkg/local"
)

func TestTablesAreParsed(t *testing.T) {
	for text, want := range map[string]string{
		"Orders=order_id": "Orders order_id:S", "Visits=user_id,number:N": "Visits user_id:S number:N", "Blobs=hash:B": "Blobs hash:B",
		"Orders": "", "Orders=": "", "=id": "", "Or=id": "", "Orders=a,b,c": "", "Orders=a,": "", "Orders=a:X": "", "Or ders=a": "", "": "",
	} {
		table, err := local.ParseOwnTable(text)
		got := table.Name
		for _, k := range table.Keys {
			got += " " + *k.AttributeName + ":" + string(k.AttributeType)
		}
		if err != nil {
			got = ""
		}
		if got != want {
			t.Errorf("%q is %q, want %q; %v", text, got, want, err)
		}
	}
}

func TestTablesThatCannotBeFollowedAreRefused(t *testing.T) {
	t.Parallel()
	table, err := local.ParseOwnTable("Orders=order_id")
	if err != nil {
		t.Fatal(err)
	}
	for want, o := range map[string]local.Options{
		"capture from them needs a DynamoDB": {Memory: true, OwnTables: []local.OwnTable{table}},
		"the template has parameters for 5":  {Memory: true, OwnTables: make([]local.OwnTable, 6)},
	} {
		o.Template, o.Log = filepath.Join("..", "..", "template.yaml"), slog.New(slog.DiscardHandler)
		if s, err := local.Open(t.Context(), o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("opened %v, error %v, want %q", s, err, want)
		}
	}
}
