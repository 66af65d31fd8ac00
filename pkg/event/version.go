package event

import (
	jsonv1 "encoding/json"
	"fmt"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// MaxVersionsBytes is the maximum size of an event's data in all versions of its type
// together. An item of DynamoDB can have 400 KB.
const MaxVersionsBytes = 380 * 1024

// Version is an event's data as a version of its type has it.
type Version struct {
	Number int
	// Since is when the version was added to the deployment; zero for the first one.
	Since time.Time
	Data  jsonv1.RawMessage // nil: that of the event's body
}

// storedVersion is the stored form of a Version.
type storedVersion struct {
	Number int            `json:"version"`
	Since  int64          `json:"since,omitzero"` // epoch ms
	Data   jsontext.Value `json:"data,omitzero"`
}

// EncodeVersions returns the stored form of an event's versions, the newest first. It fails
// if data is not JSON.
func EncodeVersions(list []Version) ([]byte, error) {
	stored := make([]storedVersion, len(list))
	for i, v := range list {
		stored[i] = storedVersion{Number: v.Number, Data: jsontext.Value(v.Data)}
		if !v.Since.IsZero() {
			stored[i].Since = v.Since.UnixMilli()
		}
	}
	text, err := json.Marshal(stored, options)
	if err != nil {
		return nil, fmt.Errorf("event versions: %w", err)
	}
	return text, nil
}

// CheckVersions reports whether an event can be sent in each of its versions: a
// *TooLargeError if one is too large.
func CheckVersions(body, versions []byte) error {
	if len(versions) == 0 {
		return nil
	}
	list, err := decodeVersions(versions)
	if err != nil {
		return err
	}
	for _, v := range list {
		if _, err := (Accepted{Body: body, Versions: versions}).InVersion(v.Number, time.Time{}); err != nil {
			return err
		}
	}
	return nil
}

// DecodeVersions reads what EncodeVersions returned.
func DecodeVersions(versions []byte) ([]Version, error) {
	stored, err := decodeVersions(versions)
	list := make([]Version, len(stored))
	for i, v := range stored {
		list[i] = Version{Number: v.Number, Data: jsonv1.RawMessage(v.Data)}
		if v.Since != 0 {
			list[i].Since = time.UnixMilli(v.Since).UTC()
		}
	}
	return list, err
}

func decodeVersions(versions []byte) (list []storedVersion, err error) {
	if len(versions) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(versions, &list, options); err != nil {
		return nil, fmt.Errorf("event versions: %w", err)
	}
	return list, nil
}

// InVersion returns the event as an endpoint gets it that is pinned to a version of its
// type, or, if that is 0, that was created at a time: with the version that was the newest
// then. If the event does not have that version, it is the one before, or the oldest. The
// same event always gives the same body.
func (a Accepted) InVersion(pinned int, created time.Time) (Accepted, error) {
	if len(a.Versions) == 0 {
		return a, nil
	}
	list, err := decodeVersions(a.Versions)
	if err != nil {
		return a, err
	}
	a.Versions = nil
	for i, v := range list {
		fits := v.Number <= pinned
		if pinned == 0 {
			fits = v.Since <= created.UnixMilli()
		}
		if !fits && i < len(list)-1 {
			continue
		}
		if v.Data == nil {
			return a, nil
		}
		e, err := Decode(a.Body)
		if err != nil {
			return a, err
		}
		e.Version, e.Data = v.Number, jsonv1.RawMessage(v.Data)
		a.Body, err = e.Encode()
		return a, err
	}
	return a, nil
}
