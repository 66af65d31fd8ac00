package dynamoitem

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// JobShard is the partition of DueIndex that has the running jobs, by the time at which the
// sweep looks after them. Those of deliveries are not negative.
const JobShard = -1

const (
	jobPartition = "job#"
	jobIDPrefix  = "job_"
	jobDocument  = "job"
)

// JobPartition is the partition of a tenant's jobs. They are in Deliveries, whose sort key
// orders them by time, under an id that no endpoint can have.
func JobPartition(tenant string) string { return jobPartition + tenant }

// JobKey is the key of a job.
func JobKey(k jobs.Key) Item {
	return Item{EndpointID: S(JobPartition(k.Tenant)), EventID: S(strings.TrimPrefix(k.ID, jobIDPrefix))}
}

// EncodeJob returns the item of a job.
func EncodeJob(j jobs.Job) (Item, error) {
	text, err := json.Marshal(j)
	if err != nil {
		return nil, fmt.Errorf("job %s: %w", j.ID, err)
	}
	item := JobKey(jobs.Key{Tenant: j.Tenant, ID: j.ID})
	item[Tenant], item[Version], item[jobDocument] = S(j.Tenant), N(int64(j.Version)), S(string(text))
	item[ExpiresAt] = Seconds(j.UpdatedAt.Add(jobs.Retention))
	if at := j.CheckAt(); !at.IsZero() {
		item[DueShard], item[DueAt] = N(JobShard), Millis(at)
	}
	return item, nil
}

// DecodeJob reads what EncodeJob wrote.
func DecodeJob(item Item) (jobs.Job, error) {
	r := reader{item: item}
	r.must(EventID, Tenant, Version, jobDocument)
	var j jobs.Job
	if text := r.s(jobDocument); r.err == nil {
		if err := json.Unmarshal([]byte(text), &j); err != nil {
			return j, fmt.Errorf("job %s: %w", r.s(EventID), err)
		}
	}
	j.Tenant, j.Version = r.s(Tenant), int(r.n(Version))
	return j, r.err
}

// DecodeJobKey reads the key of a job from an entry of the index.
func DecodeJobKey(item Item) (jobs.Key, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID)
	return jobs.Key{Tenant: strings.TrimPrefix(r.s(EndpointID), jobPartition), ID: jobIDPrefix + r.s(EventID)}, r.err
}
