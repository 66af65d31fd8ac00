package main

import (
	"strings"
	"testing"
)

func TestDoctorFindsWhatProductionLacks(t *testing.T) {
	good := deploymentFacts{OwnKey: true, Recipients: 1, AlertSecret: "alerts", Quota: 1000}
	for name, c := range map[string]struct {
		change func(*deploymentFacts)
		says   string // "" for nothing
	}{
		"a production stack":        {func(*deploymentFacts) {}, ""},
		"a table that can be lost":  {func(f *deploymentFacts) { f.Unprotected = []string{"tidings-Events"} }, "deletion protection: tidings-Events: deploy with DeletionProtection=true"},
		"no backups":                {func(f *deploymentFacts) { f.WithoutRecovery = []string{"tidings-Events"} }, "point-in-time recovery: tidings-Events"},
		"the key that AWS manages":  {func(f *deploymentFacts) { f.OwnKey = false }, "SecretsKeyArn"},
		"nobody gets alarms":        {func(f *deploymentFacts) { f.Recipients = 0 }, "AlarmEmail"},
		"no Slack":                  {func(f *deploymentFacts) { f.AlertSecret = "" }, "AlertSecret"},
		"URLs without a limit":      {func(f *deploymentFacts) { f.Unlimited = []string{"tidings-console"} }, "UrlConcurrency"},
		"a new account":             {func(f *deploymentFacts) { f.Quota = 10 }, "10: request 1000"},
		"a quota that was doubled":  {func(f *deploymentFacts) { f.Quota = 2000 }, ""},
		"more than one subscriber":  {func(f *deploymentFacts) { f.Recipients = 3 }, ""},
		"a VPC without addresses":   {func(f *deploymentFacts) { f.InVPC = true }, "source addresses: webhooks are sent from a VPC"},
		"a VPC with addresses":      {func(f *deploymentFacts) { f.InVPC, f.SourceAddresses = true, "198.51.100.10" }, ""},
		"a quota that is one short": {func(f *deploymentFacts) { f.Quota = 999 }, "quota"},
	} {
		facts := good
		c.change(&facts)
		var missing []string
		for _, one := range facts.checks() {
			if !one.OK {
				missing = append(missing, one.Name+": "+one.Detail)
			}
		}
		if got := strings.Join(missing, "\n"); (c.says == "") != (got == "") || !strings.Contains(got, c.says) || len(missing) > 1 {
			t.Errorf("%s: it says %q, want %q", name, got, c.says)
		}
	}
}

func TestDoctorNeedsAStack(t *testing.T) {
	x := &tool{t, t.TempDir()}
	if _, errOut := x.do(2, "", "doctor"); !strings.Contains(errOut, "--stack") {
		t.Error(errOut)
	}
}
