// Package ministack deploys this project's template to an emulator of AWS on this
// machine: it runs ministack, which has CloudFormation, Lambda, DynamoDB, SQS and the
// rest and enforces IAM, and `sam deploy` with the project's own samconfig.toml. It
// promises to listen on the loopback interface only and to end with the process that
// started it. Gaps of the emulator are closed by changes of a copy of the built
// template, each of which is listed with its reason in adapt.go.
package ministack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/local/process"
	"github.com/tidings-dev/tidings/test/brokers"
)

const (
	// Region and Account are where the emulator pretends to be.
	Region  = "eu-west-1"
	Account = "111122223333"

	startTime = time.Minute
)

// Emulator is a running ministack.
type Emulator struct {
	URL string
	// Log is the path of its log, with the output of the functions.
	Log string

	project, work string
	process       *process.Process
	log           *os.File
	session       credentialSet
}

// Start starts the emulator with no resources. project is the checkout; work is a folder
// for what it writes. tools/ministack/fetch and tools/sam/fetch fetch what it needs.
func Start(ctx context.Context, project, work string) (*Emulator, error) {
	port, err := process.FreePort()
	if err != nil {
		return nil, err
	}
	binary := filepath.Join(project, "tools", "ministack", ".cache", "bin", "ministack")
	if _, err := os.Stat(binary); err != nil {
		return nil, fmt.Errorf("%w: `make test-deploy` fetches it", err)
	}
	e := &Emulator{
		URL: fmt.Sprintf("http://127.0.0.1:%d", port), Log: filepath.Join(work, "ministack.log"), project: project, work: work,
		session: credentialSet{AccessKeyID: "test", SecretAccessKey: "test"}, // the emulator's administrator
	}
	if e.log, err = os.Create(e.Log); err != nil {
		return nil, err
	}
	c := exec.Command(binary)
	c.Dir, c.Stdout, c.Stderr = work, e.log, e.log
	// Functions inherit the emulator's environment, which is how they find it.
	c.Env = append(e.Environment(), "AUTH=true", fmt.Sprintf("GATEWAY_PORT=%d", port), "BIND_HOST=127.0.0.1", "MINISTACK_HOST=localhost",
		"MINISTACK_REGION="+Region, "MINISTACK_ACCOUNT_ID="+Account, "TMPDIR="+work)
	if e.process, err = process.Start(c); err != nil {
		_ = e.log.Close()
		return nil, err
	}
	if err := e.process.Ready(ctx, startTime, brokers.Answers(e.URL+"/_ministack/health")); err != nil {
		e.Stop()
		return nil, err
	}
	return e, nil
}

// Stop ends the emulator. All its resources are lost.
func (e *Emulator) Stop() {
	e.process.Stop()
	_ = e.log.Close()
}

// Environment returns this process's environment, changed so that AWS's tools and SDKs
// use the emulator and nothing of an account that is configured on this machine.
func (e *Emulator) Environment() []string {
	list := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "AWS_") && !strings.HasPrefix(v, "AWS_CA_BUNDLE=") })
	return append(list, "AWS_ENDPOINT_URL="+e.URL, "AWS_ACCESS_KEY_ID="+e.session.AccessKeyID, "AWS_SECRET_ACCESS_KEY="+e.session.SecretAccessKey,
		"AWS_SESSION_TOKEN="+e.session.SessionToken, "AWS_REGION="+Region, "AWS_DEFAULT_REGION="+Region,
		"AWS_CONFIG_FILE=/dev/null", "AWS_SHARED_CREDENTIALS_FILE=/dev/null", "AWS_EC2_METADATA_DISABLED=true", "SAM_CLI_TELEMETRY=0")
}

// Access returns the configuration of AWS clients for the emulator.
func (e *Emulator) Access() aws.Config {
	return aws.Config{
		Region: Region, BaseEndpoint: &e.URL, HTTPClient: awsconfig.HTTPClient(awshttp.NewBuildableClient().GetTransport()),
		Credentials: credentials.NewStaticCredentialsProvider(e.session.AccessKeyID, e.session.SecretAccessKey, e.session.SessionToken),
	}
}

// Architecture returns this machine's, as the template's parameter of that name.
func Architecture() string {
	if runtime.GOARCH == "arm64" {
		return "arm64"
	}
	return "x86_64"
}

// Build runs `sam build` for this machine into a folder, and adapts the template there.
func (e *Emulator) Build(ctx context.Context, folder string) error {
	if _, err := e.output(ctx, []string{"TIDINGS_GOARCH=" + runtime.GOARCH}, "sam", "build", "--build-dir", folder, "--parameter-overrides", "Architecture="+Architecture()); err != nil {
		return err
	}
	return Adapt(folder)
}

// Deploy deploys what was built and adapted, with tools/github/deploy.py, as the deploy
// workflow does.
// Parameters are added to those of the environment in samconfig.toml; extra are further
// variables for the program, such as the role of CloudFormation.
func (e *Emulator) Deploy(ctx context.Context, built, environment string, parameters map[string]string, extra ...string) error {
	set := append([]string{"PARAMETER_Architecture=" + Architecture()}, extra...)
	for name, value := range parameters {
		set = append(set, "PARAMETER_"+name+"="+value)
	}
	_, err := e.output(ctx, set, "python3", filepath.Join("tools", "github", "deploy.py"), environment, "--template-file", filepath.Join(built, "template.yaml"))
	return err
}

// output runs a program of the SAM CLI's environment in the checkout, and returns its
// standard output.
func (e *Emulator) output(ctx context.Context, extra []string, program string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, filepath.Join(e.project, "tools", "sam", ".cache", "sam", "bin", program), args...)
	c.Dir, c.Env = e.project, append(e.Environment(), extra...)
	var complaint bytes.Buffer
	c.Stderr = &complaint
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s%s", program, args[0], err, out, &complaint)
	}
	return out, nil
}

// FunctionURL returns the URL at which the emulator serves a function of a stack. The one
// in the stack's outputs has a host name that does not exist here.
func (e *Emulator) FunctionURL(ctx context.Context, function string) (string, error) {
	host, err := e.FunctionHost(ctx, function)
	if err != nil {
		return "", err
	}
	id, _, found := strings.Cut(host, ".")
	if !found {
		return "", errors.New(function + " has no function URL as on AWS")
	}
	return e.URL + "/_aws/lambda-url/" + id, nil
}

// Tail returns the end of the emulator's log, for a failed test.
func (e *Emulator) Tail() string {
	f, err := os.Open(e.Log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const most = 20_000
	if info, err := f.Stat(); err == nil && info.Size() > most {
		_, _ = f.Seek(-most, io.SeekEnd)
	}
	text, _ := io.ReadAll(f)
	return string(text)
}
