package console

import (
	"context"
	"net/http"
	"strings"

	"github.com/tidings-dev/tidings/pkg/dispatch"
	"github.com/tidings-dev/tidings/pkg/ops/jobs"
)

// NewErasure says whose data to erase.
type NewErasure struct {
	Subject string `json:"subject" minLength:"2" maxLength:"256" doc:"The id by which events name the person, or another text that is the whole value of a personal field, such as an email address"`
	DryRun  bool   `json:"dry_run,omitempty" required:"false" doc:"Count, and erase nothing"`
}

// StartErasure starts a job that erases what is stored about a person. The audit log gets
// only what the operator wrote. Failed changes that have no tenant can be any tenant's, so
// only an operator's erasure searches them.
func (o *Operations) StartErasure(ctx context.Context, who Session, n NewErasure) (Job, error) {
	subject := strings.TrimSpace(n.Subject)
	if len(subject) < 2 || len(subject) > 256 {
		return Job{}, errorf(Invalid, "subject: must be the id of a person, as events have it, of 2 to 256 bytes")
	}
	id := jobs.NewID(o.Now())
	detail := "job " + id
	if n.DryRun {
		detail += ", dry run"
	}
	started, err := change(ctx, o, who, "person.erase", &subject, detail, func() (j jobs.Job, err error) {
		return j, o.Dispatch(ctx, dispatch.Command{
			Action: "start_job", Kind: jobs.Erase, JobID: id, By: who.Name, Tenant: who.Tenant, Subject: subject, DryRun: n.DryRun,
			WithoutTenant: who.Role == Operator,
		}, &j)
	})
	if err != nil {
		return Job{}, err
	}
	return o.viewJob(ctx, who, started)
}

// erasePerson handles the form of the events' page: it starts a dry run, from whose page the
// erasure itself is started.
func (c *Console) erasePerson(r *http.Request, who Session) (page, error) {
	j, err := c.Operations.StartErasure(r.Context(), who, NewErasure{Subject: r.PostForm.Get("subject"), DryRun: true})
	return page{Redirect: jobPath(j)}, err
}
