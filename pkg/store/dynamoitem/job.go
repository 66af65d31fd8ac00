package dynamoitem

import (
	"cmp"
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

// DecodeJob reads what EncodeJob wrote. With jobs.ErrUnreadable it returns a failed job with
// the key and the version that are stored.
func DecodeJob(item Item) (jobs.Job, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID, Tenant, Version, jobDocument)
	var j jobs.Job
	err := json.Unmarshal([]byte(r.s(jobDocument)), &j)
	key := reader{item: item}
	k := jobs.Key{Tenant: strings.TrimPrefix(key.s(EndpointID), jobPartition), ID: jobIDPrefix + key.s(EventID)}
	version := int(r.n(Version))
	if err = cmp.Or(r.err, err); err != nil {
		err = fmt.Errorf("job %s: %w: %w", k.ID, jobs.ErrUnreadable, err)
		return jobs.Job{ID: k.ID, Tenant: k.Tenant, Version: version}.Unreadable(err, key.seconds(ExpiresAt).Add(-jobs.Retention)), err
	}
	j.Tenant, j.Version = k.Tenant, version
	return j, nil
}

// DecodeJobKey reads the key of a job from an entry of the index.
func DecodeJobKey(item Item) (jobs.Key, error) {
	r := reader{item: item}
	r.must(EndpointID, EventID)
	return jobs.Key{Tenant: strings.TrimPrefix(r.s(EndpointID), jobPartition), ID: jobIDPrefix + r.s(EventID)}, r.err
}
