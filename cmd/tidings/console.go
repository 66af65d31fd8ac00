package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/user"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/aws/awsconfig"
	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local/loopback"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func (a *app) consoleCommand() *cobra.Command {
	c := &cobra.Command{Use: "console", Short: "Sign in to the web console: login, open, revoke"}
	c.AddCommand(a.consoleLogin(), a.consoleOpen(), a.consoleRevoke())
	return c
}

// operator is the default name of the session: the user who runs the command.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "operator"
}

// invitation adds --role and --as, and returns the invitation that they describe.
func (a *app) invitation(c *cobra.Command) func() console.Invitation {
	i := console.Invitation{Name: operator()}
	role := ""
	c.Flags().StringVar(&role, "role", string(console.Admin), "role: admin, viewer (read-only), or operator (an admin who also sees failed changes of every tenant)")
	c.Flags().StringVar(&i.Name, "as", i.Name, "user name in the audit log")
	return func() console.Invitation {
		i.Role, i.Tenant = console.Role(role), a.tenant
		return i
	}
}

// functionURL returns a function's URL without a trailing slash.
func (t *target) functionURL(ctx context.Context, function string) (string, error) {
	if t.urls != nil {
		return strings.TrimSuffix(t.urls[function], "/"), nil
	}
	out, err := t.lambda.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{
		FunctionName: aws.String(t.prefix + function), Qualifier: aws.String(samtemplate.Alias),
	})
	if err != nil {
		return "", fmt.Errorf("look up the URL of function %s: %w", function, err)
	}
	return strings.TrimSuffix(aws.ToString(out.FunctionUrl), "/"), nil
}

func (a *app) consoleLogin() *cobra.Command {
	var token bool
	var lasts time.Duration
	c := &cobra.Command{
		Use: "login", Short: "Print a one-time login link", Args: args(0, "no arguments"),
		Long: `Print a login link for the console. It works once, within ten minutes. With
--token, print a session token instead; programs send it to the console's API in the
header X-Tidings-Session.`,
	}
	of := a.invitation(c)
	c.Flags().BoolVar(&token, "token", false, "print a session token for a program instead of a link")
	c.Flags().DurationVar(&lasts, "lasts", console.SessionTime, "lifetime of the session token, at most 2160h (90 days)")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if token && (lasts <= 0 || lasts > console.MaxTokenTime) {
			return usagef("--lasts is %s: a token lasts more than 0s and at most %s (90 days)", lasts, console.MaxTokenTime)
		}
		t, err := a.connect(c.Context())
		if err != nil {
			return err
		}
		base, err := t.functionURL(c.Context(), "console")
		if err != nil {
			return err
		}
		if token {
			text, err := console.Token(c.Context(), t.store, of(), time.Now(), lasts)
			if err != nil {
				return unreachable(err)
			}
			if a.json {
				return a.printJSON(map[string]string{"url": base, "token": text})
			}
			fmt.Fprintln(a.out, text)
			return nil
		}
		path, err := console.Invite(c.Context(), t.store, of(), time.Now())
		if err != nil {
			return unreachable(err)
		}
		if a.json {
			return a.printJSON(map[string]string{"link": base + path})
		}
		fmt.Fprintln(a.out, base+path)
		return nil
	}
	return c
}

func (a *app) consoleRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke", Short: "End all console sessions within a minute", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			if err := t.store.DeleteValue(c.Context(), console.KeyName); err != nil {
				return unreachable(err)
			}
			if a.json {
				return a.printJSON(map[string]bool{"revoked": true})
			}
			fmt.Fprintln(a.out, "all sessions end within a minute; `tidings console login` creates a new link")
			return nil
		},
	}
}

func (a *app) consoleOpen() *cobra.Command {
	var port int
	c := &cobra.Command{
		Use: "open", Short: "Proxy a deployed console that requires IAM authentication", Args: args(0, "no arguments"),
		Long: `Serve a deployed console on localhost and sign every request with the AWS
credentials of the environment, which a browser cannot do. It prints a one-time login
link. Ctrl-C stops it.`,
	}
	of := a.invitation(c)
	c.Flags().IntVar(&port, "port", 8765, "local port; 0 selects a free port")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if a.stack == "" {
			return usagef("tidings console open needs --stack; for the local runner use `tidings console login`")
		}
		ctx := c.Context()
		t, err := a.connect(ctx)
		if err != nil {
			return err
		}
		base, err := t.functionURL(ctx, "console")
		if err != nil {
			return err
		}
		to, err := url.Parse(base)
		if err != nil {
			return fmt.Errorf("the console's URL: %w", err)
		}
		cfg, err := awsconfig.Load(ctx, a.limits)
		if err != nil {
			return err
		}
		path, err := console.Invite(ctx, t.store, of(), time.Now())
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("port %d is not available; choose another with --port: %w", port, err)
		}
		fmt.Fprintf(a.out, "http://%s%s\n\nPress Ctrl-C to stop.\n", l.Addr(), path)
		server := &http.Server{Handler: signingProxy(to, cfg.Credentials, cfg.Region, time.Now), ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { _ = server.Close() })
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	return c
}

// signingProxy signs every request for a function URL (AWS Lambda Developer Guide,
// "Control access to Lambda function URLs"), except those that a page of another origin can
// make. It removes the Secure attribute from
// cookies: some browsers do not store secure cookies for http://127.0.0.1.
func signingProxy(to *url.URL, credentials aws.CredentialsProvider, region string, now func() time.Time) http.Handler {
	signer := v4.NewSigner()
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.ResponseHeaderTimeout = time.Minute // longer than the console runs
	return loopback.Only(&httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = to.Host
			r.Out.Header.Del("Connection")
		},
		Transport: roundTrip(func(r *http.Request) (*http.Response, error) {
			var body []byte
			if r.Body != nil {
				var err error
				if body, err = io.ReadAll(r.Body); err != nil {
					return nil, err
				}
			}
			r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			sum := sha256.Sum256(body)
			identity, err := credentials.Retrieve(r.Context())
			if err != nil {
				return nil, fmt.Errorf("AWS credentials: %w", err)
			}
			// Sign a request without the browser's headers.
			signed, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			signed.ContentLength = int64(len(body))
			if err := signer.SignHTTP(r.Context(), identity, signed, hex.EncodeToString(sum[:]), "lambda", region, now()); err != nil {
				return nil, fmt.Errorf("sign the request: %w", err)
			}
			for name, values := range signed.Header {
				r.Header[name] = values
			}
			r.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(sum[:]))
			return transport.RoundTrip(r)
		}),
		ModifyResponse: func(r *http.Response) error {
			for i, c := range r.Header["Set-Cookie"] {
				r.Header["Set-Cookie"][i] = strings.ReplaceAll(c, "; Secure", "")
			}
			return nil
		},
	})
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
