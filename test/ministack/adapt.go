package ministack

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"go.yaml.in/yaml/v3"
)

// object is a mapping of the template. Its methods return an empty one for what is not
// there.
type object map[string]any

func (o object) child(name string) object {
	c, _ := o[name].(object)
	return c
}

func list(v any) []any {
	l, ok := v.([]any)
	if !ok && v != nil {
		l = []any{v}
	}
	return l
}

// Adapt changes the template that `sam build` has written into a folder to one that the
// emulator accepts. Each change is for a gap of ministack 1.5.33; see whether it is still
// needed when you update that.
func Adapt(built string) error {
	path := filepath.Join(built, "template.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var template object
	if err := yaml.Unmarshal(text, &template); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	resources := template.child("Resources")
	// There is no CodeDeploy.
	delete(template.child("Globals").child("Function"), "DeploymentPreference")
	for _, resource := range resources {
		r, _ := resource.(object)
		properties := r.child("Properties")
		// There are no alarms on an expression.
		if _, ok := properties["Metrics"]; ok && r["Type"] == "AWS::CloudWatch::Alarm" {
			delete(properties, "Metrics")
			properties["Namespace"], properties["MetricName"] = "AWS/Lambda", "Errors"
			properties["Statistic"], properties["Period"] = "Sum", 60
		}
		// A reference to a boolean is stored as a string, which the SDK cannot read.
		if _, ok := properties["DeletionProtectionEnabled"]; ok {
			properties["DeletionProtectionEnabled"] = false
		}
		// A reference to a number is passed on as a string, which stops the poller.
		for _, event := range properties.child("Events") {
			e, _ := event.(object)
			if p := e.child("Properties"); p["ScalingConfig"] != nil {
				p["ScalingConfig"] = object{"MaximumConcurrency": 50}
			}
		}
		// A batch needs a permission of its own, which AWS does not have.
		for _, policy := range list(properties["Policies"]) {
			p, _ := policy.(object)
			for _, statement := range list(p.child("PolicyDocument")["Statement"]) {
				s, _ := statement.(object)
				if actions := list(s["Action"]); slices.Contains(actions, any("sqs:SendMessage")) {
					s["Action"] = append(slices.Clone(actions), "sqs:SendMessageBatch")
				}
			}
		}
	}
	out, err := yaml.Marshal(template)
	if err != nil {
		return err
	}
	return os.WriteFile(path, out, 0o644)
}
