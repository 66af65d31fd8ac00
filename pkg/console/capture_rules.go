package console

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/tidings-dev/tidings/pkg/admin/capturerules"
	"github.com/tidings-dev/tidings/pkg/event"
	"github.com/tidings-dev/tidings/pkg/event/deployed"
)

// CaptureRules are the files of capture rules of the deployment.
type CaptureRules struct {
	Shipped   bool              `json:"shipped" doc:"The rules that come with Tidings are on"`
	Files     []CaptureRuleFile `json:"files" nullable:"false" doc:"The deployment's own, ordered by name"`
	ChangedAt time.Time         `json:"changed_at,omitzero" doc:"When rules or event types were last changed"`
	ChangedBy string            `json:"changed_by,omitempty"`
}

// CaptureRuleFile is a file of capture rules.
type CaptureRuleFile struct {
	Name   string   `json:"name" minLength:"1" maxLength:"64" doc:"The file's name without .yaml"`
	Text   string   `json:"text" maxLength:"262144" doc:"YAML"`
	Events []string `json:"events,omitempty" required:"false" readOnly:"true" doc:"Types of the events that its rules publish"`
}

// CaptureRulesChange is a change of the capture rules. All of it takes effect together, or
// nothing.
type CaptureRulesChange struct {
	Files   []CaptureRuleFile `json:"files,omitempty" required:"false" maxItems:"100" doc:"To add, or to replace those of the same name"`
	Remove  []string          `json:"remove,omitempty" required:"false" maxItems:"101" doc:"Names of files; shipped switches off the rules that come with Tidings"`
	Shipped bool              `json:"shipped,omitempty" required:"false" doc:"Switch the rules that come with Tidings on"`
	DryRun  bool              `json:"dry_run,omitempty" required:"false" doc:"Say what would change, and change nothing"`
}

// CaptureRulesPlan is what a change does.
type CaptureRulesPlan struct {
	Files   []capturerules.Item `json:"files" nullable:"false" doc:"What it does to each file: add, change, remove or keep"`
	Applied bool                `json:"applied" doc:"False for a dry run. What is applied takes effect within a minute"`
}

// operatesRules requires an operator of all tenants.
func operatesRules(who Session) error {
	if !operatesAll(who) {
		return errorf(Forbidden, "capture rules are those of all tenants: log in with --role operator, to the tenant %s", event.DefaultTenant)
	}
	return nil
}

// ListCaptureRules returns the deployment's capture rules.
func (o *Operations) ListCaptureRules(ctx context.Context, who Session) (CaptureRules, error) {
	if err := operatesRules(who); err != nil {
		return CaptureRules{}, err
	}
	set, err := deployed.Read(ctx, o.Rules.Store, -1)
	if err != nil {
		return CaptureRules{}, err
	}
	all := CaptureRules{Shipped: !set.Rules.WithoutShipped, Files: []CaptureRuleFile{}, ChangedAt: set.ChangedAt, ChangedBy: set.ChangedBy}
	for _, f := range set.Rules.Files {
		all.Files = append(all.Files, CaptureRuleFile(f))
	}
	return all, nil
}

// ChangeCaptureRules changes the deployment's capture rules, or says what the change would
// do.
func (o *Operations) ChangeCaptureRules(ctx context.Context, who Session, c CaptureRulesChange) (CaptureRulesPlan, error) {
	if err := operatesRules(who); err != nil {
		return CaptureRulesPlan{}, err
	}
	request := capturerules.Request{Remove: c.Remove, Shipped: c.Shipped}
	names := slices.Clone(c.Remove)
	for _, f := range c.Files {
		request.Files = append(request.Files, capturerules.File{Path: f.Name, Text: f.Text})
		names = append(names, f.Name)
	}
	plan, err := o.Rules.Plan(ctx, request)
	if err != nil {
		return CaptureRulesPlan{}, explainRules(err)
	}
	result := CaptureRulesPlan{Files: append([]capturerules.Item{}, plan.Items...)}
	if c.DryRun || plan.Empty() {
		return result, nil
	}
	if c.Shipped {
		names = append(names, capturerules.Shipped)
	}
	subject := "capture rules"
	return change(ctx, o, who, "capture_rules.change", &subject, strings.Join(names, ", "), func() (CaptureRulesPlan, error) {
		result.Applied = true
		return result, explainRules(o.Rules.Apply(ctx, plan, "console:"+who.Name, event.NewID(o.Now())))
	})
}

func explainRules(err error) error {
	var large *deployed.LimitError
	switch {
	case errors.As(err, &large):
		return errorf(Invalid, "%s", large)
	case errors.Is(err, capturerules.ErrWrong):
		return errorf(Invalid, "%s", err)
	case errors.Is(err, deployed.ErrConflict):
		return errorf(Conflict, "%s", err)
	}
	return err
}

// rulesPage is the data of the pages of capture rules.
type rulesPage struct {
	CaptureRules
	File   CaptureRuleFile   // in the form
	Plan   *CaptureRulesPlan // of a check
	Unread bool              // the stored rules could not be read: they are not shown
}

// showRules shows the list, and the file that the parameter names in the form.
func (c *Console) showRules(r *http.Request, who Session) (page, error) {
	all, err := c.Operations.ListCaptureRules(r.Context(), who)
	if err != nil {
		return page{}, err
	}
	data := rulesPage{CaptureRules: all}
	if name := r.URL.Query().Get("file"); name != "" {
		at := slices.IndexFunc(all.Files, func(f CaptureRuleFile) bool { return f.Name == name })
		if at < 0 {
			return page{}, errorf(NotFound, "there are no capture rules of this name")
		}
		data.File = all.Files[at]
	}
	return page{Template: "rules", Title: "Capture rules", Nav: "capture", Data: data}, nil
}

// changeRules handles the forms: it checks or applies a file, removes one, or switches the
// shipped rules.
func (c *Console) changeRules(r *http.Request, who Session) (page, error) {
	ctx, form := r.Context(), r.PostForm
	file := CaptureRuleFile{Name: strings.TrimSpace(form.Get("name")), Text: strings.ReplaceAll(form.Get("text"), "\r\n", "\n")}
	var request CaptureRulesChange
	switch form.Get("do") {
	case "remove":
		request.Remove = []string{file.Name}
	case "on":
		request.Shipped = true
	default:
		request.Files, request.DryRun = []CaptureRuleFile{file}, form.Get("do") != "apply"
	}
	plan, err := c.Operations.ChangeCaptureRules(ctx, who, request)
	if len(request.Files) == 0 || err == nil && !request.DryRun {
		return page{Redirect: "/capture-rules?did=ruled&file=" + url.QueryEscape(listed(request, file.Name))}, err
	}
	// The form again, with what was written in it.
	p := page{Template: "rules", Title: "Capture rules", Nav: "capture"}
	all, unread := c.Operations.ListCaptureRules(ctx, who)
	data := rulesPage{CaptureRules: all, File: file, Unread: unread != nil}
	if err == nil {
		err = unread
	}
	var wrong *Error
	switch {
	case err == nil:
		data.Plan = &plan
	case !errors.As(err, &wrong):
		p.Status, p.Problem = http.StatusInternalServerError, c.Operations.shown(ctx, err)
	case wrong.Kind == Forbidden:
		return page{}, err
	default:
		p.Status, p.Problem = int(wrong.Kind), wrong.Message
	}
	p.Data = data
	return p, nil
}

// listed returns the name of the file that the page shows after a change; "" for none.
func listed(request CaptureRulesChange, name string) string {
	if len(request.Files) == 0 {
		return ""
	}
	return name
}
