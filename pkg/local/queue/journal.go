package queue

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// journal is an append-only file with a JSON line for each change of a queue. A
// line is written before the call that made it returns, so it survives a killed
// process. It is not synced to disk, so a power cut can lose the last lines. A nil
// journal keeps nothing.
type journal struct {
	path  string
	file  *os.File
	lines int // in the file, obsolete ones included
	live  map[uint64]record
}

// record is one line: a sent message, a receive, or a deletion.
type record struct {
	ID uint64 `json:"id"`
	Outgoing
	Sent     int64 `json:"sent,omitempty"`    // epoch ms
	Visible  int64 `json:"visible,omitempty"` // epoch ms; end of the delay
	Receives int   `json:"receives,omitempty"`
	Received bool  `json:"received,omitempty"` // a receive: only Receives is set
	Deleted  bool  `json:"deleted,omitempty"`
}

// compactAt is how many obsolete lines a journal may have.
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
			// An unfinished line was being written when the process died, so its
			// caller never got an answer.
			return nil
		}
		if err != nil {
			return err
		}
		var r record
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("journal %s: invalid line: %w", j.path, err)
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
	return slices.SortedFunc(maps.Values(j.live), func(a, b record) int { return cmp.Compare(a.ID, b.ID) })
}

// compact replaces the file with one that holds only the messages still on the queue.
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

func (j *journal) sent(m *message) error {
	if j == nil {
		return nil
	}
	return j.append(record{ID: m.id, Outgoing: m.Outgoing, Sent: m.sent.UnixMilli(), Visible: m.visible.UnixMilli()})
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
