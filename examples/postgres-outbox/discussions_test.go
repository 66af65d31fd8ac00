//go:build postgres

package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/pkg/platform"
	"github.com/tidings-dev/tidings/pkg/platform/remote"
	"github.com/tidings-dev/tidings/pkg/signature"
	"github.com/tidings-dev/tidings/test/storetest"
)

// platformSide is the platform's own access to its tables, and the console's through the
// endpoint.
type platformSide struct {
	*remote.Client
	db *pgx.Conn
	mu sync.Mutex
}

func (p *platformSide) PutRecord(ctx context.Context, record platform.Record) error {
	d, ok := record.(platform.Discussion)
	if !ok {
		return nil // other records are in tables of their own
	}
	if d.Tenant == "" {
		d.Tenant = "default"
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.db.Exec(ctx, `INSERT INTO discussions (id, tenant, community_id, title, status, expires_at, created_at, updated_at)
		VALUES ($1, $2, nullif($3, ''), $4, $5, $6, $7, $8)`, d.ID, d.Tenant, d.CommunityID, d.Title, d.Status, d.ExpiresAt, d.CreatedAt, d.UpdatedAt)
	return err
}

func (p *platformSide) DeleteRecord(ctx context.Context, k platform.Key) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, err := p.db.Exec(ctx, "DELETE FROM discussions WHERE id = $1", strings.TrimPrefix(k.PK, "DISCUSSION#"))
	return err
}

func endpointOf(t *testing.T, url string) *remote.Client {
	t.Helper()
	secret := signature.NewSecret()
	web := httptest.NewServer(&remote.Handler{
		Store: Discussions{Database: url}, Secret: secret, Now: time.Now, Failed: func(err error) { t.Error(err) },
	})
	t.Cleanup(web.Close)
	return &remote.Client{URL: web.URL, Secret: func(context.Context) (signature.Secret, error) { return secret, nil }, Now: time.Now}
}

// The endpoint on PostgreSQL keeps the contract of the stores on DynamoDB.
func TestTheEndpointKeepsTheStoresContract(t *testing.T) {
	storetest.RunDiscussions(t, func(t *testing.T) storetest.Discussions {
		url, db := database(t)
		if _, err := db.Exec(t.Context(), "INSERT INTO communities VALUES ('c_1', 'Gophers Berlin', 'Berlin')"); err != nil {
			t.Fatal(err)
		}
		return &platformSide{Client: endpointOf(t, url), db: db}
	})
}

// The schedule closes what has expired, once, and the events say which discussion it was.
func TestTheScheduleClosesExpiredDiscussions(t *testing.T) {
	url, db := database(t)
	if _, err := db.Exec(t.Context(), `INSERT INTO communities VALUES ('c_1', 'Gophers Berlin', 'Berlin');
		INSERT INTO discussions (id, community_id, title, expires_at) VALUES ('d_1', 'c_1', 'Parking', now() - interval '1 minute'), ('d_2', 'c_1', 'Venue', now() + interval '1 hour')`); err != nil {
		t.Fatal(err)
	}
	s := Discussions{Database: url}
	for _, want := range []int64{1, 0} {
		if n, err := s.CloseExpired(t.Context()); err != nil || n != want {
			t.Errorf("closed %d, %v; want %d", n, err, want)
		}
	}
	now := time.Now().UTC().Truncate(time.Millisecond)
	if _, err := endpointOf(t, url).ExtendDiscussion(t.Context(), platform.Extension{Tenant: "default", ID: "d_2", To: now.Add(48 * time.Hour), Login: "console:ada", At: now}); err != nil {
		t.Fatal(err)
	}
	var closed, extended string
	err := db.QueryRow(t.Context(), `SELECT
		(SELECT data::text FROM outbox WHERE event = 'discussion.auto_closed'), (SELECT data::text FROM outbox WHERE event = 'discussion.extended')`).Scan(&closed, &extended)
	if err != nil {
		t.Fatal(err)
	}
	for text, has := range map[string][]string{
		closed:   {`"title": "Parking"`, `"community_id": "c_1"`, `"community_name": "Gophers Berlin"`, `"discussion_id": "d_1"`},
		extended: {`"title": "Venue"`, `"extended_by_login": "console:ada"`, `"previous_expires_at"`},
	} {
		for _, part := range has {
			if !strings.Contains(text, part) {
				t.Errorf("%s lacks %s", text, part)
			}
		}
	}
}
