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
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/lambda"
	"github.com/spf13/cobra"

	"github.com/tidings-dev/tidings/pkg/console"
	"github.com/tidings-dev/tidings/pkg/local/samtemplate"
)

func (a *app) consoleCommand() *cobra.Command {
	c := &cobra.Command{Use: "console", Short: "The page from which people run it: login, open, revoke"}
	c.AddCommand(a.consoleLogin(), a.consoleOpen(), a.consoleRevoke())
	return c
}

// operator is what the console calls whoever runs this command.
func operator() string {
	if u, err := user.Current(); err == nil && u.Username != "" {
		return u.Username
	}
	if name := os.Getenv("USER"); name != "" {
		return name
	}
	return "operator"
}

// invitation adds the flags that say for whom a link is.
func (a *app) invitation(c *cobra.Command) func() console.Invitation {
	i := console.Invitation{Name: operator()}
	role := ""
	c.Flags().StringVar(&role, "role", string(console.Admin), "admin, or viewer, who sees and changes nothing")
	c.Flags().StringVar(&i.Name, "as", i.Name, "who it is for: the name in the audit log")
	return func() console.Invitation {
		i.Role, i.Tenant = console.Role(role), a.tenant
		return i
	}
}

// consoleURL is where the console's function answers.
func (t *target) consoleURL(ctx context.Context) (string, error) {
	if t.urls != nil {
		return strings.TrimSuffix(t.urls["console"], "/"), nil
	}
	out, err := t.lambda.GetFunctionUrlConfig(ctx, &lambda.GetFunctionUrlConfigInput{
		FunctionName: aws.String(t.prefix + "console"), Qualifier: aws.String(samtemplate.Alias),
	})
	if err != nil {
		return "", fmt.Errorf("where is the console: %w", err)
	}
	return strings.TrimSuffix(aws.ToString(out.FunctionUrl), "/"), nil
}

func (a *app) consoleLogin() *cobra.Command {
	var token bool
	var lasts time.Duration
	c := &cobra.Command{
		Use: "login", Short: "Make a link that lets one person in, once", Args: args(0, "no arguments"),
		Long: `Makes a link that lets one person into the console, once, within ten minutes.
With --token, prints a credential for programs instead, which goes into the header
X-Tidings-Session of requests to the console's API.`,
	}
	of := a.invitation(c)
	c.Flags().BoolVar(&token, "token", false, "print a session for a program instead of a link")
	c.Flags().DurationVar(&lasts, "lasts", console.SessionTime, "how long the program's session lasts")
	c.RunE = func(c *cobra.Command, _ []string) error {
		t, err := a.connect(c.Context())
		if err != nil {
			return err
		}
		base, err := t.consoleURL(c.Context())
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
		Use: "revoke", Short: "End every session, within a minute", Args: args(0, "no arguments"),
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := a.connect(c.Context())
			if err != nil {
				return err
			}
			if err := t.store.Unbind(c.Context(), console.KeyName); err != nil {
				return unreachable(err)
			}
			if a.json {
				return a.printJSON(map[string]bool{"revoked": true})
			}
			fmt.Fprintln(a.out, "every session ends within a minute; `tidings console login` lets people in again")
			return nil
		},
	}
}

func (a *app) consoleOpen() *cobra.Command {
	var port int
	c := &cobra.Command{
		Use: "open", Short: "Open a deployed console that asks for IAM credentials, through this machine", Args: args(0, "no arguments"),
		Long: `Serves a deployed console on this machine and signs each request with the AWS
credentials of the environment, because a browser can't. It prints a one-time link;
Ctrl-C ends it.`,
	}
	of := a.invitation(c)
	c.Flags().IntVar(&port, "port", 8765, "the port on this machine; 0 takes a free one")
	c.RunE = func(c *cobra.Command, _ []string) error {
		if a.stack == "" {
			return usage("tidings console open takes --stack: the local runner's console needs no signatures, `tidings console login` is enough")
		}
		ctx := c.Context()
		t, err := a.connect(ctx)
		if err != nil {
			return err
		}
		base, err := t.consoleURL(ctx)
		if err != nil {
			return err
		}
		to, err := url.Parse(base)
		if err != nil {
			return fmt.Errorf("the console's URL: %w", err)
		}
		cfg, err := config.LoadDefaultConfig(ctx)
		if err != nil {
			return fmt.Errorf("AWS configuration: %w", err)
		}
		path, err := console.Invite(ctx, t.store, of(), time.Now())
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return fmt.Errorf("port %d is taken; choose another with --port: %w", port, err)
		}
		fmt.Fprintf(a.out, "http://%s%s\n\nCtrl-C ends it.\n", l.Addr(), path)
		server := &http.Server{Handler: signing(to, cfg.Credentials, cfg.Region, time.Now), ReadHeaderTimeout: 10 * time.Second}
		context.AfterFunc(ctx, func() { _ = server.Close() })
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
	return c
}

// signing is a proxy that signs each request for a function URL (AWS Lambda
// Developer Guide, "Control access to Lambda function URLs"). The session's
// cookie loses its Secure attribute on the way back: some browsers don't keep such
// a one for a page on this machine, which is http.
func signing(to *url.URL, credentials aws.CredentialsProvider, region string, now func() time.Time) http.Handler {
	signer := v4.NewSigner()
	transport := http.DefaultTransport
	return &httputil.ReverseProxy{
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
			who, err := credentials.Retrieve(r.Context())
			if err != nil {
				return nil, fmt.Errorf("AWS credentials: %w", err)
			}
			// The browser's own headers stay out of the signature.
			signed, err := http.NewRequestWithContext(r.Context(), r.Method, r.URL.String(), bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			signed.ContentLength = int64(len(body))
			if err := signer.SignHTTP(r.Context(), who, signed, hex.EncodeToString(sum[:]), "lambda", region, now()); err != nil {
				return nil, fmt.Errorf("sign a request: %w", err)
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
	}
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
