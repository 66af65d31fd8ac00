//go:build postgres

package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/jackc/pgx/v5"

	"github.com/tidings-dev/tidings/pkg/aws/lambdaclient"
	"github.com/tidings-dev/tidings/pkg/endpoint"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/local"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/pkg/local/receiver"
	"github.com/tidings-dev/tidings/pkg/signature"
)

//go:embed schema.sql
var schemaSQL string

var quiet = slog.New(slog.DiscardHandler)

// server is the URL of a PostgreSQL's first database.
var server string

func TestMain(m *testing.M) {
	code, err := withPostgres(m.Run)
	if err != nil {
		fmt.Fprintln(os.Stderr, "PostgreSQL:", err)
		code = 1
	}
	os.Exit(code)
}

// withPostgres runs something beside a PostgreSQL of its own: a new folder, a
// free port on the loopback, ended and removed afterwards.
func withPostgres(run func() int) (int, error) {
	bin := os.Getenv("TIDINGS_POSTGRES")
	if bin == "" {
		return 0, errors.New("run it with `make test-postgres`, which finds or installs one")
	}
	dir, err := os.MkdirTemp("", "tidings-postgres-")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	var as *syscall.SysProcAttr
	if os.Getuid() == 0 { // PostgreSQL refuses to run as root
		who, err := user.Lookup("postgres")
		if err != nil {
			return 0, err
		}
		uid, _ := strconv.Atoi(who.Uid) // Unix has numbers
		gid, _ := strconv.Atoi(who.Gid)
		if err := os.Chown(dir, uid, gid); err != nil {
			return 0, err
		}
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}
	command := func(name string, args ...string) *exec.Cmd {
		c := exec.Command(filepath.Join(bin, name), args...)
		c.Dir, c.SysProcAttr = dir, as
		c.Env = []string{"PATH=" + os.Getenv("PATH"), "LC_ALL=C", "HOME=" + dir}
		return c
	}
	data := filepath.Join(dir, "data")
	if out, err := command("initdb", "-D", data, "-U", "postgres", "--auth=trust", "-E", "UTF8", "--no-sync").CombinedOutput(); err != nil {
		return 0, fmt.Errorf("initdb: %w\n%s", err, out)
	}
	port, err := process.FreePort()
	if err != nil {
		return 0, err
	}
	var log strings.Builder
	c := command("postgres", "-D", data, "-p", fmt.Sprint(port), "-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off")
	c.Stdout, c.Stderr = &log, &log
	process, err := process.Start(c)
	if err != nil {
		return 0, err
	}
	defer process.Stop()
	server = fmt.Sprintf("postgres://postgres@127.0.0.1:%d/postgres?sslmode=disable", port)
	err = process.Ready(context.Background(), time.Minute, func(ctx context.Context) error {
		db, err := pgx.Connect(ctx, server)
		if err != nil {
			return err
		}
		return db.Close(ctx)
	})
	if err != nil {
		return 0, fmt.Errorf("%w\n%s", err, log.String())
	}
	return run(), nil
}

// database makes a database with the example's tables, and returns its URL and a
// connection.
func database(t *testing.T) (string, *pgx.Conn) {
	t.Helper()
	admin, err := pgx.Connect(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close(context.Background())
	name := fmt.Sprintf("t%d", time.Now().UnixNano())
	if _, err := admin.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
	url := strings.Replace(server, "/postgres?", "/"+name+"?", 1)
	db, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close(context.Background()) })
	if _, err := db.Exec(t.Context(), schemaSQL); err != nil {
		t.Fatal(err)
	}
	return url, db
}

// world is a running Tidings with a receiver.
type world struct {
	emit    func(context.Context, []Event) ([]Result, error)
	arrived chan receiver.Webhook
}

func tidings(t *testing.T) *world {
	t.Helper()
	system, err := local.Open(t.Context(), local.Options{Template: filepath.Join("..", "..", "template.yaml"), Memory: true, Log: quiet})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- system.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		system.Close()
	})
	w := &world{arrived: make(chan receiver.Webhook, 10_000)}
	secret := signature.NewSecret()
	r := receiver.New(1, receiver.Behaviour{})
	r.Secrets = func() []string { return []string{secret.Reveal()} }
	r.OnWebhook = func(h receiver.Webhook) { w.arrived <- h }
	web := httptest.NewServer(r)
	t.Cleanup(web.Close)
	now := time.Now()
	err = system.Store.AddEndpoint(t.Context(), endpoint.Endpoint{
		Tenant: event.DefaultTenant, ID: endpoint.NewID(now), URL: web.URL + "/", EventTypes: []string{"*"}, Status: endpoint.Enabled, Version: 1,
		Secrets: []endpoint.SigningSecret{{Secret: secret}}, CreatedAt: now, UpdatedAt: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	client := lambda.NewFromConfig(system.Access.Config(), func(o *lambda.Options) { o.BaseEndpoint = aws.String(system.InvokeURL) })
	call := lambdaclient.Function(client, "emit")
	w.emit = func(ctx context.Context, list []Event) ([]Result, error) {
		var answer struct{ Results []Result }
		err := call(ctx, map[string][]Event{"events": list}, &answer)
		return answer.Results, err
	}
	return w
}

// follow runs a relay until the test ends.
func follow(t *testing.T, r *Relay) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = r.Run(ctx) // ends with ctx alone
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
}

// await counts arrivals by type until there are n.
func (w *world) await(t *testing.T, n int) (map[string]int, map[string]bool) {
	t.Helper()
	types, ids := map[string]int{}, map[string]bool{}
	timeout := time.After(time.Minute)
	for len(ids) < n {
		select {
		case h := <-w.arrived:
			if !h.Verified {
				t.Errorf("not verified: %+v", h)
			}
			if !ids[h.ID] {
				types[h.Type]++
			}
			ids[h.ID] = true
		case <-timeout:
			t.Fatalf("after a minute %v of %d have arrived", types, n)
		}
	}
	return types, ids
}

// The platform's SQL, with what means something and what does not: each event
// arrives, and no other.
func TestTheTablesTellWhatHappened(t *testing.T) {
	url, db := database(t)
	w := tidings(t)
	follow(t, &Relay{Database: url, Source: "outbox", Emit: w.emit, Log: quiet})
	for _, statement := range []string{
		`INSERT INTO users VALUES ('u_1','ada@example.org','Ada'), ('u_2','grace@example.org','Grace')`,
		`INSERT INTO communities VALUES ('c_1','Gophers Berlin','Berlin'), ('c_2','Gophers Online',NULL)`,
		`INSERT INTO memberships VALUES ('c_1','u_1',NULL), ('c_2','u_2','u_1')`,
		`INSERT INTO registrations VALUES ('r_1','e_1','u_1',NULL,'success'), ('r_2','e_1','u_2','p_1','pending'), ('r_3','e_1','u_1','p_2','waitlisted'), ('r_4','e_1','u_1','p_3','pending')`,
		`UPDATE registrations SET status = 'success' WHERE id = 'r_2'`,
		`UPDATE registrations SET status = 'success' WHERE id = 'r_2'`, // nothing new
		`UPDATE registrations SET status = 'refunded' WHERE id = 'r_2'`,
		`DELETE FROM registrations WHERE id = 'r_1'`,
		`UPDATE registrations SET status = 'cancelled' WHERE id = 'r_3'`,
		`UPDATE registrations SET status = 'cancelled' WHERE id = 'r_3'`, // nothing new
		`DELETE FROM registrations WHERE id = 'r_3'`,                     // cancelled already
		`INSERT INTO registrations VALUES ('r_5','e_1','u_1','p_4','pending')`,
		`DELETE FROM registrations WHERE id = 'r_5'`,                                               // never succeeded
		`BEGIN; SET LOCAL outbox.quiet = 'on'; DELETE FROM registrations WHERE id = 'r_4'; COMMIT`, // a clean-up
		`BEGIN; INSERT INTO users VALUES ('u_3','nobody@example.org','Nobody'); ROLLBACK`,          // did not happen
		`INSERT INTO discussions (id, title, expires_at) VALUES ('d_1','A',now() - interval '1 minute'), ('d_2','B',now() + interval '1 hour'), ('d_3','C',now() + interval '1 hour')`,
		`INSERT INTO comments VALUES ('m_1','d_1','u_1','a < b & "c" – 🎟')`,
		`INSERT INTO flags VALUES ('m_1','u_2','spam')`,
		`INSERT INTO referrals VALUES ('u_2','u_1','ADA-2026')`,
		`SELECT close_expired_discussions()`,
		`SELECT close_expired_discussions()`, // again
		`UPDATE discussions SET expires_at = expires_at + interval '1 day', extended_by = 'u_1' WHERE id = 'd_2'`,
		`UPDATE discussions SET expires_at = expires_at - interval '1 hour' WHERE id = 'd_2'`,
		`UPDATE discussions SET status = 'closed', close_reason = 'by_hand', closed_at = now() WHERE id = 'd_3'`,
		`UPDATE users SET name = 'Ada L.' WHERE id = 'u_1'`,
	} {
		if _, err := db.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	want := map[string]int{
		"user.joined_platform": 2, "user.joined_community": 2, "user.registered_event": 5, "user.cancelled_registration": 2, "user.posted_comment": 1,
		"user.flagged_comment": 1, "user.referred_user": 1, "discussion.auto_closed": 1, "discussion.extended": 1,
	}
	n := 0
	for _, k := range want {
		n += k
	}
	got, ids := w.await(t, n)
	if !maps.Equal(got, want) {
		t.Errorf("arrived: %v, want %v", got, want)
	}
	// Nothing waits, nothing was refused, and each row knows its event.
	unsent(t, db, 0)
	rows, err := db.Query(t.Context(), "SELECT event_id, data::text FROM outbox")
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for rows.Next() {
		var id, data string
		if err := rows.Scan(&id, &data); err != nil {
			t.Fatal(err)
		}
		total++
		if !ids[id] || !json.Valid([]byte(data)) {
			t.Errorf("row %s was not delivered", id)
		}
	}
	if err := rows.Err(); err != nil || total != n {
		t.Errorf("%d rows, %v; want %d", total, err, n)
	}
}

// unsent waits until so many rows are neither sent nor refused.
func unsent(t *testing.T, db *pgx.Conn, want int) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		var n int
		if err := db.QueryRow(t.Context(), "SELECT count(*) FROM outbox WHERE sent_at IS NULL AND refused IS NULL").Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == want {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d rows wait, want %d", n, want)
		}
	}
}

func comments(t *testing.T, db *pgx.Conn, n int) {
	t.Helper()
	_, err := db.Exec(t.Context(), `INSERT INTO outbox (event, actor_user_id, data)
		SELECT 'user.posted_comment', 'u', jsonb_build_object('discussion_id', 'd', 'comment_id', 'm_' || i, 'comment_text', 'text ' || i) FROM generate_series(1, $1::int) i`, n)
	if err != nil {
		t.Fatal(err)
	}
}

// A relay that dies after emit has answered, before it has marked the rows, sends
// them again: they are the same events.
func TestARelayThatDiesSendsNothingTwice(t *testing.T) {
	_, db := database(t)
	w := tidings(t)
	comments(t, db, 50)
	died := errors.New("died")
	var first []Result
	dies := &Relay{Source: "outbox", Log: quiet, Emit: func(ctx context.Context, list []Event) ([]Result, error) {
		var err error
		if first, err = w.emit(ctx, list); err != nil {
			t.Fatal(err)
		}
		return nil, died
	}}
	if _, err := dies.Batch(t.Context(), db); !errors.Is(err, died) {
		t.Fatalf("batch: %v", err)
	}
	unsent(t, db, 50)
	var second []Result
	lives := &Relay{Source: "outbox", Log: quiet, Emit: func(ctx context.Context, list []Event) ([]Result, error) {
		var err error
		second, err = w.emit(ctx, list)
		return second, err
	}}
	if n, err := lives.Batch(t.Context(), db); err != nil || n != 50 {
		t.Fatalf("batch: %d, %v", n, err)
	}
	for i := range second {
		if second[i].ID != first[i].ID || !second[i].Duplicate || first[i].Duplicate {
			t.Fatalf("row %d was %+v, then %+v", i, first[i], second[i])
		}
	}
	w.await(t, 50)
	// Another 50 come, and with them nothing of the first.
	comments(t, db, 50)
	if n, err := lives.Batch(t.Context(), db); err != nil || n != 50 {
		t.Fatalf("batch: %d, %v", n, err)
	}
	_, ids := w.await(t, 50)
	for _, one := range first {
		if ids[one.ID] {
			t.Errorf("%s came twice", one.ID)
		}
	}
}

// Several relays share the rows; each row is taken by one.
func TestRelaysShareTheWork(t *testing.T) {
	url, db := database(t)
	w := tidings(t)
	const n = 1000
	comments(t, db, n)
	var sent atomic.Int64
	var mu sync.Mutex
	keys := map[string]int{}
	for range 3 {
		follow(t, &Relay{Database: url, Source: "outbox", Log: quiet, Emit: func(ctx context.Context, list []Event) ([]Result, error) {
			sent.Add(int64(len(list)))
			mu.Lock()
			for _, e := range list {
				keys[e.IdempotencyKey]++
			}
			mu.Unlock()
			return w.emit(ctx, list)
		}})
	}
	w.await(t, n)
	unsent(t, db, 0)
	mu.Lock()
	defer mu.Unlock()
	if sent.Load() != n || len(keys) != n {
		t.Errorf("%d rows were sent, %d different ones; want %d", sent.Load(), len(keys), n)
	}
}

// What emit refuses is marked with the reason and holds nobody up; what it could
// not store stays where it is.
func TestWhatEmitRefuses(t *testing.T) {
	_, db := database(t)
	w := tidings(t)
	if _, err := db.Exec(t.Context(), `INSERT INTO outbox (event, data) VALUES ('user.exploded', '{}'), ('user.posted_comment', '{"discussion_id":"d"}')`); err != nil {
		t.Fatal(err)
	}
	comments(t, db, 1)
	away := true
	r := &Relay{Source: "outbox", Log: quiet, Emit: func(ctx context.Context, list []Event) ([]Result, error) {
		results, err := w.emit(ctx, list)
		if away && err == nil {
			_ = json.Unmarshal([]byte(`{"error":{"code":"unavailable","message":"try again"}}`), &results[len(results)-1])
		}
		return results, err
	}}
	if n, err := r.Batch(t.Context(), db); err != nil || n != 2 {
		t.Fatalf("batch: %d, %v", n, err)
	}
	unsent(t, db, 1)
	if _, err := r.Batch(t.Context(), db); err == nil || !strings.Contains(err.Error(), "stored none") {
		t.Errorf("nothing could be stored: %v", err)
	}
	away = false
	if n, err := r.Batch(t.Context(), db); err != nil || n != 1 {
		t.Fatalf("batch: %d, %v", n, err)
	}
	var reasons string
	if err := db.QueryRow(t.Context(), "SELECT string_agg(refused, ' | ' ORDER BY id) FROM outbox").Scan(&reasons); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(reasons, `"user.exploded" is not an event type`) || !strings.Contains(reasons, "data.comment_id: is missing") {
		t.Errorf("refused: %s", reasons)
	}
}

// The relay goes on by itself when its connection ends.
func TestTheDatabaseGoesAwayForAMoment(t *testing.T) {
	url, db := database(t)
	w := tidings(t)
	follow(t, &Relay{Database: url, Source: "outbox", Emit: w.emit, Log: quiet})
	comments(t, db, 1)
	w.await(t, 1)
	if _, err := db.Exec(t.Context(), `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
		t.Fatal(err)
	}
	comments(t, db, 2)
	w.await(t, 2)
}

func TestWithoutADatabaseItSaysSo(t *testing.T) {
	if err := run(t.Context(), "", "emit", "outbox", quiet); err == nil || !strings.Contains(err.Error(), "DATABASE_URL") {
		t.Errorf("%v", err)
	}
}
