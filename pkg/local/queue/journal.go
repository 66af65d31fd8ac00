package queue

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
)

// journal is an append-only file of what happened to a queue, a JSON line each.
// A line is handed to the operating system before the call that made it
// returns, so it survives a killed process; it is not forced to the disk, so the
// last moments do not survive a power cut. A nil journal keeps nothing.
type journal struct {
	path  string
	file  *os.File
	lines int // in the file; far more than there are messages means garbage
	live  map[uint64]record
}

// record is one line: a message as it is now, or its end.
type record struct {
	ID       uint64 `json:"id"`
	Body     string `json:"body,omitempty"`
	Group    string `json:"group,omitempty"`
	Sent     int64  `json:"sent,omitempty"`    // epoch ms
	Visible  int64  `json:"visible,omitempty"` // epoch ms; when its first delay is over
	Receives int    `json:"receives,omitempty"`
	Received bool   `json:"received,omitempty"` // only Receives counts
	Deleted  bool   `json:"deleted,omitempty"`
}

// compactAt is how many lines of garbage a journal may have.
const compactAt = 100_000

func openJournal(path string) (*journal, []record, error) {
	j := &journal{path: path, live: map[uint64]record{}}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, nil, err
	}
	if err := j.read(); err != nil {
		return nil, nil, err
	}
	if err := j.compact(); err != nil {
		return nil, nil, err
	}
	kept := j.sorted()
	return j, kept, nil
}

func (j *journal) read() error {
	file, err := os.Open(j.path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	in := bufio.NewReader(file)
	for {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			// A line without an end was being written when the process died:
			// whoever asked for it never got an answer.
			return nil
		}
		if err != nil {
			return err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("journal %s holds a line that is not its own: %w", j.path, err)
		}
		j.apply(r)
	}
}

func (j *journal) apply(r record) {
	switch {
	case r.Deleted:
		delete(j.live, r.ID)
	case r.Received:
		if m, ok := j.live[r.ID]; ok {
			m.Receives = r.Receives
			j.live[r.ID] = m
		}
	default:
		j.live[r.ID] = r
	}
}

func (j *journal) sorted() []record {
	list := make([]record, 0, len(j.live))
	for _, r := range j.live {
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b record) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list
}

// compact writes what lives to a new file and puts it in the old one's place.
func (j *journal) compact() error {
	fresh, err := os.CreateTemp(filepath.Dir(j.path), ".journal-*")
	if err != nil {
		return err
	}
	out := bufio.NewWriter(fresh)
	lines := json.NewEncoder(out)
	for _, r := range j.sorted() {
		if err = lines.Encode(r); err != nil {
			break
		}
	}
	err = errors.Join(err, out.Flush())
	if err == nil {
		err = os.Rename(fresh.Name(), j.path)
	}
	if err != nil {
		return errors.Join(err, fresh.Close(), os.Remove(fresh.Name()))
	}
	if j.file != nil {
		err = j.file.Close()
	}
	j.file, j.lines = fresh, len(j.live)
	return err
}

func (j *journal) append(r record) error {
	j.apply(r)
	line, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	j.lines++
	if j.lines > 2*len(j.live)+compactAt {
		return j.compact()
	}
	return nil
}

func (j *journal) sent(m *message, group string) error {
	if j == nil {
		return nil
	}
	return j.append(record{ID: m.id, Body: m.body, Group: group, Sent: m.sent.UnixMilli(), Visible: m.visible.UnixMilli()})
}

func (j *journal) received(m *message) error {
	if j == nil {
		return nil
	}
	return j.append(record{ID: m.id, Received: true, Receives: m.receives})
}

func (j *journal) deleted(id uint64) error {
	if j == nil {
		return nil
	}
	return j.append(record{ID: id, Deleted: true})
}

func (j *journal) close() error { return j.file.Close() }
