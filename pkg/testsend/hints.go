package testsend

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

// Hint says in plain words what a failure means and what to do about it.
type Hint struct {
	Code HintCode `json:"code"` // stable, for programs and for looking it up
	Text string   `json:"text"`
}

// HintCode names a failure. Codes come from error types, statuses and protocols'
// codes, never from an error's text.
type HintCode string

// The failures that have a hint.
const (
	HintInvalid   HintCode = "invalid"    // the endpoint's settings cannot work
	HintBlocked   HintCode = "blocked"    // the guard's doing
	HintTimeout   HintCode = "timeout"    // somewhere in an exchange that shows no phases
	HintThrottled HintCode = "throttled"  // a broker's quota
	HintTooLarge  HintCode = "too_large"  // a broker's limit
	HintAnswered  HintCode = "answered"   // a refusal that has no code of its own here
	HintUnreached HintCode = "no_connect" // no connection, for no reason that has a code

	HintDNSNotFound HintCode = "dns_not_found"
	HintDNSFailed   HintCode = "dns_failed"
	HintDNSTimeout  HintCode = "dns_timeout"

	HintRefused        HintCode = "connection_refused"
	HintNoRoute        HintCode = "no_route"
	HintConnectTimeout HintCode = "connect_timeout"
	HintReset          HintCode = "connection_reset"
	HintClosed         HintCode = "closed_without_answer"

	HintTLSName        HintCode = "tls_name"
	HintTLSExpired     HintCode = "tls_expired"
	HintTLSNotYet      HintCode = "tls_not_yet_valid"
	HintTLSSelfSigned  HintCode = "tls_self_signed"
	HintTLSUnknown     HintCode = "tls_unknown_authority"
	HintTLSNotServer   HintCode = "tls_not_for_servers"
	HintTLSNotSpoken   HintCode = "tls_not_spoken"
	HintTLSVersion     HintCode = "tls_version"
	HintTLSClientCert  HintCode = "tls_client_certificate"
	HintTLSHandshake   HintCode = "tls_handshake"
	HintTLSTimeout     HintCode = "tls_timeout"
	HintAnswerTimeout  HintCode = "answer_timeout"
	HintNotHTTP        HintCode = "not_http"
	HintRedirect       HintCode = "redirect"
	HintHTTPSRedirect  HintCode = "redirect_to_https"
	HintBadRequest     HintCode = "http_400"
	HintUnauthorized   HintCode = "http_401"
	HintForbidden      HintCode = "http_403"
	HintNotFound       HintCode = "http_404"
	HintMethod         HintCode = "http_405"
	HintNotAcceptable  HintCode = "http_406"
	HintRequestTimeout HintCode = "http_408"
	HintConflict       HintCode = "http_409"
	HintGone           HintCode = "http_410"
	HintTooLargeHTTP   HintCode = "http_413"
	HintMediaType      HintCode = "http_415"
	HintUnprocessable  HintCode = "http_422"
	HintTooMany        HintCode = "http_429"
	HintServerError    HintCode = "http_500"
	HintBadGateway     HintCode = "http_502"
	HintUnavailable    HintCode = "http_503"
	HintGatewayTimeout HintCode = "http_504"
	HintStatus         HintCode = "http_status"

	HintQueueMissing HintCode = "queue_missing"
	HintQueueDenied  HintCode = "queue_access_denied"
	HintRoleDenied   HintCode = "role_not_assumed"
	HintKeyDenied    HintCode = "queue_key_denied"
	HintCredentials  HintCode = "aws_credentials"

	HintPubSubTopic    HintCode = "pubsub_topic_unknown"
	HintPubSubDenied   HintCode = "pubsub_permission_denied"
	HintPubSubIdentity HintCode = "pubsub_no_identity"
	HintPubSubSchema   HintCode = "pubsub_message_refused"

	HintKafkaTopic    HintCode = "kafka_topic_unknown"
	HintKafkaDenied   HintCode = "kafka_not_authorized"
	HintKafkaLogin    HintCode = "kafka_login_failed"
	HintKafkaSecret   HintCode = "kafka_secret_unreadable"
	HintKafkaForm     HintCode = "kafka_secret_malformed"
	HintKafkaReplicas HintCode = "kafka_not_enough_replicas"
	HintKafkaClosed   HintCode = "kafka_closed_connection"
)

// situation is what a hint is made of.
type failedAttempt struct {
	protocol  string
	url       string
	timeout   time.Duration
	now       time.Time
	throwaway bool // signed with a secret that the receiver cannot have
	outcome   delivery.Outcome
	exchange  *destination.Exchange
}

func newHint(code HintCode, format string, args ...any) Hint {
	return Hint{Code: code, Text: fmt.Sprintf(format, args...)}
}

// hint says what a failed attempt means.
func hint(s failedAttempt) Hint {
	switch s.outcome.Class {
	case delivery.Invalid:
		if s.exchange.Code != "" {
			break // a broker said so
		}
		return newHint(HintInvalid, "This endpoint cannot work as it is set up: correct it as the error says. Nothing was sent.")
	case delivery.Blocked:
		return newHint(HintBlocked, "The host's address is private, local or reserved, and webhooks go to public addresses only. "+
			"Use the receiver's public address; if the network is this deployment's own, whoever deploys can allow it (parameter AllowNetworks).")
	}
	switch s.protocol {
	case "sqs":
		return sqsHint(s)
	case "pubsub":
		return pubsubHint(s)
	case "kafka":
		return kafkaHint(s)
	}
	if s.outcome.Status != 0 {
		return statusHint(s)
	}
	return connectionHint(s)
}

// connectionHint is for whatever got no answer: it serves HTTP, and brokers up to
// the first word of their own protocol.
func connectionHint(s failedAttempt) Hint {
	host, port := hostAndPort(s.url)
	err := s.exchange.Cause
	var (
		name      *net.DNSError
		hostname  x509.HostnameError
		authority x509.UnknownAuthorityError
		invalid   x509.CertificateInvalidError
		record    tls.RecordHeaderError
	)
	if s.outcome.Class == delivery.Timeout {
		return timeoutHint(s, host, port)
	}
	alert, alerted := destination.TLSAlert(err)
	switch {
	case errors.As(err, &name):
		if name.IsNotFound {
			return newHint(HintDNSNotFound, "The name %s has no address. Check its spelling in the URL, and that its domain has an A or AAAA record; one that was made just now may need some minutes.", name.Name)
		}
		return newHint(HintDNSFailed, "The name servers of %s answered with a failure. Check the domain's name server and DNSSEC records (for example with `dig %s`), then try again.", name.Name, name.Name)
	case errors.As(err, &hostname):
		names := "no host name at all"
		if c := hostname.Certificate; c != nil && len(c.DNSNames) > 0 {
			names = strings.Join(c.DNSNames[:min(len(c.DNSNames), 5)], ", ")
		}
		return newHint(HintTLSName, "The certificate is for %s, not for %s. Put the name that the certificate has into the URL, or get a certificate that also covers %s; "+
			"behind a proxy, look at its default certificate.", names, hostname.Host, hostname.Host)
	case errors.As(err, &invalid):
		return certificateHint(invalid, s.now)
	case errors.As(err, &authority):
		if c := authority.Cert; c != nil && bytes.Equal(c.RawIssuer, c.RawSubject) {
			return newHint(HintTLSSelfSigned, "The certificate is self-signed, so anybody could have made it. Use one of a public authority; Let's Encrypt gives them for nothing.")
		}
		return newHint(HintTLSUnknown, "The certificate's issuer is not known. Most often the server does not send the intermediate certificate: configure the full chain (fullchain.pem). "+
			"A private authority is not trusted here.")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return newHint(HintTLSNotSpoken, "Something answers on port %s of %s, but not with TLS. Use the port that serves https (usually 443), or fix the server: it serves plain text there.", port, host)
	case alerted:
		return alertHint(alert)
	case errors.Is(err, syscall.ECONNREFUSED):
		return newHint(HintRefused, "%s is there, but nothing listens on port %s. Is the receiver running, and on this port? A firewall that rejects looks the same.", host, port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return newHint(HintNoRoute, "There is no way to the address of %s from here. Check that its DNS record holds the right, public address, and an IPv4 one.", host)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return newHint(HintReset, "The receiver broke the connection off (reset). It crashed, or a firewall or proxy in front of it did not like the request: look into its log at this time.")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return newHint(HintClosed, "The receiver took the request and closed the connection without an answer. It probably crashed while it handled the event: look into its log at this time.")
	case s.outcome.Class == delivery.TLS:
		return newHint(HintTLSHandshake, "The TLS handshake failed. Check the server's TLS settings, for example with `openssl s_client -connect %s:%s`.", host, port)
	case s.outcome.Class == delivery.Protocol:
		return newHint(HintNotHTTP, "What answered on port %s of %s does not speak HTTP. Check the port in the URL.", port, host)
	}
	return newHint(HintUnreached, "No connection could be made to port %s of %s. Check address, port and firewall.", port, host)
}

func timeoutHint(s failedAttempt, host, port string) Hint {
	after := s.timeout.Round(100 * time.Millisecond)
	switch s.exchange.Ended {
	case destination.PhaseDNS:
		return newHint(HintDNSTimeout, "The name servers of %s did not answer. Check the domain's name server records, then try again.", host)
	case destination.PhaseConnect:
		return newHint(HintConnectTimeout, "%s did not react to the connection on port %s within %s. A firewall or security group drops it silently, or the address is wrong: let the world in on this port "+
			"(the signature is what proves us), or correct the URL.", host, port, after)
	case destination.PhaseTLS:
		return newHint(HintTLSTimeout, "Port %s of %s accepts connections, but the TLS handshake was not finished within %s. Is it a TLS port, and is there a living server behind the load balancer?", port, host, after)
	case destination.PhaseSend, destination.PhaseResponse:
		return newHint(HintAnswerTimeout, "The receiver got the whole request and had not answered after %s. Answer 2xx at once and do the work afterwards; "+
			"if it really needs longer, raise the endpoint's timeout (at most 30s).", after)
	}
	return newHint(HintTimeout, "There was no answer within %s. Check that %s can be reached from this deployment, and that it is not overloaded.", after, host)
}

func certificateHint(invalid x509.CertificateInvalidError, now time.Time) Hint {
	switch {
	case invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
		return newHint(HintTLSNotYet, "The certificate is valid from %s only. Check the server's clock when it was made, or wait.", invalid.Cert.NotBefore.UTC().Format(time.RFC3339))
	case invalid.Reason == x509.Expired && invalid.Cert != nil:
		return newHint(HintTLSExpired, "The certificate expired on %s. Renew it, reload the server so that it serves the new one, and look why the renewal did not happen by itself.",
			invalid.Cert.NotAfter.UTC().Format(time.DateOnly))
	case invalid.Reason == x509.Expired:
		return newHint(HintTLSExpired, "The certificate, or one of its chain, has expired. Renew it and reload the server.")
	}
	return newHint(HintTLSNotServer, "The certificate is not one for servers (its use, its chain or its constraints forbid it). Get a server certificate from a public authority.")
}

// alertHint reads TLS alerts (RFC 8446, section 6.2).
func alertHint(alert uint8) Hint {
	const (
		handshakeFailure    = 40
		badCertificate      = 42
		protocolVersion     = 70
		unrecognizedName    = 112
		certificateRequired = 116
	)
	switch alert {
	case protocolVersion, handshakeFailure:
		return newHint(HintTLSVersion, "The server offers no TLS version or cipher that is still safe. Enable TLS 1.2 or 1.3 on it.")
	case certificateRequired, badCertificate:
		return newHint(HintTLSClientCert, "The server wants a client certificate (mutual TLS), which webhooks do not have. Switch that off for this path, and verify the signature instead.")
	case unrecognizedName:
		return newHint(HintTLSName, "The server knows no certificate for this host name. Correct the name in the URL, or configure the server for it.")
	}
	return newHint(HintTLSHandshake, "The server broke off the TLS handshake. Look into its log at this time, and check its TLS settings.")
}

// verification is what to look at where a receiver refuses a signature.
func verification(s failedAttempt) string {
	if s.throwaway {
		return "This test was signed with a secret made for it, which the receiver cannot know: test the endpoint by its id, or give its secret."
	}
	return "Compare the secret's fingerprint, verify over the raw body before any parsing, and check the receiver's clock (5 minutes are tolerated)."
}

// statusHint reads an HTTP answer.
func statusHint(s failedAttempt) Hint {
	status := s.outcome.Status
	get := func(name string) string {
		for _, f := range s.exchange.ResponseHeaders {
			if strings.EqualFold(f.Name, name) {
				return f.Value
			}
		}
		return ""
	}
	if status >= 300 && status <= 399 {
		return redirectHint(s, get("Location"))
	}
	switch status {
	case http.StatusBadRequest:
		return newHint(HintBadRequest, "The receiver did not like the request (400). The answer's body may say why; often it is the signature check. %s", verification(s))
	case http.StatusUnauthorized:
		if scheme := get("WWW-Authenticate"); scheme != "" {
			kind, _, _ := strings.Cut(scheme, " ")
			return newHint(HintUnauthorized, "The receiver wants a login (401, %s), which webhooks do not have. Take the path out of that protection, and verify the signature instead.", kind)
		}
		return newHint(HintUnauthorized, "The receiver did not accept the signature, or wants a login (401). %s", verification(s))
	case http.StatusForbidden:
		return newHint(HintForbidden, "The receiver, or a firewall, CSRF check or bot filter in front of it, forbids the request (403). Take this path out of such filters. If it is the signature check: %s", verification(s))
	case http.StatusNotFound:
		return newHint(HintNotFound, "Nobody serves this path (404). Check the URL's path, its spelling, capitals and a slash at its end, and that the receiver's route is deployed.")
	case http.StatusMethodNotAllowed:
		allow := ""
		if list := get("Allow"); list != "" {
			allow = "; it takes " + list
		}
		return newHint(HintMethod, "The path exists, but does not take POST (405%s). Register the route for POST, or correct the path.", allow)
	case http.StatusNotAcceptable:
		return newHint(HintNotAcceptable, "The receiver says that it cannot answer in a form we take (406). Let it answer anything: only the status counts.")
	case http.StatusRequestTimeout:
		return newHint(HintRequestTimeout, "The receiver says that the request came too slowly (408). A proxy in front of it has too short a timeout.")
	case http.StatusConflict:
		return newHint(HintConflict, "The receiver sees a conflict (409). If it means that it has this event already, it should answer 2xx: everything else is sent again.")
	case http.StatusGone:
		return newHint(HintGone, "The receiver says that this address is gone for good (410). A delivery would disable the endpoint. Set the new URL, or remove the endpoint.")
	case http.StatusRequestEntityTooLarge:
		return newHint(HintTooLargeHTTP, "The receiver, or a proxy in front of it, takes no body of %d bytes (413). Allow at least 256 KiB (nginx: client_max_body_size).", bodyBytes(s))
	case http.StatusUnsupportedMediaType:
		return newHint(HintMediaType, "The receiver does not take application/json (415). Let its route accept that content type; the body is JSON in UTF-8.")
	case http.StatusUnprocessableEntity:
		return newHint(HintUnprocessable, "The receiver read the body and did not like its content (422). Compare it with the event's schema (`tidings events show TYPE`), and let unknown types and fields pass.")
	case http.StatusTooManyRequests:
		return newHint(HintTooMany, "The receiver asks for less (429). A delivery waits as long as Retry-After says; give the endpoint a rate limit that the receiver can bear.")
	case http.StatusBadGateway:
		return newHint(HintBadGateway, "The proxy in front of the receiver got no proper answer from it (502). Is the application running, and does it listen where the proxy looks?")
	case http.StatusServiceUnavailable:
		return newHint(HintUnavailable, "The receiver is not available (503): overloaded, in maintenance, or without a healthy instance behind the load balancer. Deliveries are tried again.")
	case http.StatusGatewayTimeout:
		return newHint(HintGatewayTimeout, "The proxy in front of the receiver waited for it in vain (504). Answer 2xx at once and do the work afterwards.")
	}
	if status >= 500 {
		return newHint(HintServerError, "The receiver failed while it handled the event (%d). Look into its log at this time; the answer's body may say more. Deliveries are tried again.", status)
	}
	return newHint(HintStatus, "The receiver answered %d. Only 2xx counts as taken; everything else is sent again.", status)
}

func bodyBytes(s failedAttempt) int {
	for _, f := range s.exchange.RequestHeaders {
		if strings.EqualFold(f.Name, "Content-Length") {
			var n int
			if _, err := fmt.Sscan(f.Value, &n); err == nil {
				return n
			}
		}
	}
	return 0
}

func redirectHint(s failedAttempt, location string) Hint {
	from, err := url.Parse(s.url)
	to, err2 := url.Parse(location)
	if location == "" || err != nil || err2 != nil {
		return newHint(HintRedirect, "The receiver redirects (%d), which is not followed: a followed redirect can turn a POST into an empty GET. Set the final address as the endpoint's URL.", s.outcome.Status)
	}
	to = from.ResolveReference(to)
	if from.Scheme == "http" && to.Scheme == "https" && from.Hostname() == to.Hostname() {
		return newHint(HintHTTPSRedirect, "The receiver redirects to https (%d), which is not followed. Set the endpoint's URL to %s.", s.outcome.Status, to.Redacted())
	}
	why := ""
	if from.Host == to.Host && from.Path != to.Path && strings.Trim(from.Path, "/") == strings.Trim(to.Path, "/") {
		why = " Only the slash at the end differs."
	}
	return newHint(HintRedirect, "The receiver redirects to %s (%d), which is not followed: a followed redirect can turn a POST into an empty GET. If that is the right address, set it as the endpoint's URL.%s",
		to.Redacted(), s.outcome.Status, why)
}

// sqsHint reads what SQS, STS or KMS said.
func sqsHint(s failedAttempt) Hint {
	if operationIn(s.exchange.Cause, "STS") && s.outcome.Class != delivery.Timeout {
		return newHint(HintRoleDenied, "The role in role_arn could not be assumed (%s). Its trust policy must name the dispatch function's role and have the tenant as external id, "+
			"and its name must fit the parameter DestinationRoles (webhooks-…).", s.exchange.Code)
	}
	switch s.outcome.Class {
	case delivery.Missing:
		return newHint(HintQueueMissing, "There is no such queue. Check account, name (with .fifo, if it is one) and region in the URL. SQS says the same where an account may not know that the queue exists.")
	case delivery.Denied:
		switch s.exchange.Code {
		case "InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "MissingAuthenticationToken", "OptInRequired":
			return newHint(HintCredentials, "AWS did not accept our credentials (%s). Is the region enabled in this account?", s.exchange.Code)
		}
		if strings.HasPrefix(s.exchange.Code, "Kms") || strings.HasPrefix(s.exchange.Code, "KMS") {
			return newHint(HintKeyDenied, "The key that encrypts the queue does not let us use it (%s). Its policy must let the dispatch function's role, or the role in role_arn, generate data keys and decrypt.", s.exchange.Code)
		}
		return newHint(HintQueueDenied, "The queue is there but does not let us send (%s). Allow sqs:SendMessage to the dispatch function's role in the queue's policy, or name a role that may (role_arn); "+
			"the parameter DestinationQueues must cover the queue, too (webhooks-…).", s.exchange.Code)
	case delivery.TooLarge:
		return newHint(HintTooLarge, "The queue takes no message of this size. Raise its MaximumMessageSize.")
	case delivery.Throttled:
		return newHint(HintThrottled, "SQS asks for less (%s). Deliveries are tried again; a FIFO queue may need high throughput mode.", s.exchange.Code)
	case delivery.Answered:
		return newHint(HintAnswered, "SQS refused the message (%s). Deliveries are tried again.", s.exchange.Code)
	}
	return brokerConnection(s, "SQS in the URL's region")
}

// operationIn reports whether a call to the service failed anywhere beneath err.
func operationIn(err error, service string) bool {
	for err != nil {
		var o *smithy.OperationError
		if !errors.As(err, &o) {
			return false
		}
		if o.ServiceID == service {
			return true
		}
		err = o.Err
	}
	return false
}

func pubsubHint(s failedAttempt) Hint {
	switch s.outcome.Class {
	case delivery.Missing:
		return newHint(HintPubSubTopic, "There is no such topic. Check the project's id (not its name or number) and the topic's name in the URL, and create the topic if it was never made.")
	case delivery.Denied:
		if s.exchange.Code == "PermissionDenied" {
			return newHint(HintPubSubDenied, "The topic is there but does not let us publish. Grant roles/pubsub.publisher on it to this deployment's identity (docs/destinations.md has the command).")
		}
		return newHint(HintPubSubIdentity, "Google did not accept this deployment's identity, or it has none (%s). Set the parameter GoogleCredentials to the workload identity federation's configuration; "+
			"docs/destinations.md has the steps.", s.exchange.Code)
	case delivery.Invalid:
		return newHint(HintPubSubSchema, "The topic does not take such messages (%s). If it has a schema, it must allow our body; if it is encrypted with a key of its own, the key must be enabled.", s.exchange.Code)
	case delivery.TooLarge:
		return newHint(HintTooLarge, "Pub/Sub takes no message of this size.")
	case delivery.Throttled:
		return newHint(HintThrottled, "The project's publish quota is used up. Raise it in the Google Cloud console, or give the endpoint a rate limit.")
	case delivery.Answered:
		return newHint(HintAnswered, "Pub/Sub refused the message (%s), which is its own trouble. Deliveries are tried again.", s.exchange.Code)
	}
	return brokerConnection(s, "Pub/Sub")
}

// Titles of Kafka's errors, as kafka-go says them (kafka.apache.org/protocol).
var kafkaLogin = map[string]bool{
	"SASL Authentication Failed": true, "Unacceptable Credential": true, "Unsupported SASL Mechanism": true, "Illegal SASL State": true, "Security Disabled": true,
}

func kafkaHint(s failedAttempt) Hint {
	u, err := url.Parse(s.url)
	logsIn := err == nil && u.Query().Get("sasl") != ""
	switch {
	case s.exchange.Code == destination.CodeBadCredentials:
		return newHint(HintKafkaForm, `The secret in the endpoint's credentials can be read, but is not of the form {"username":"…","password":"…"}. Correct it in Secrets Manager.`)
	case s.exchange.Code == destination.CodeNoCredentials:
		return newHint(HintKafkaSecret, "The secret that the endpoint's credentials name cannot be read. Check its name and region in Secrets Manager; it must begin with tidings/TENANT/.")
	case s.outcome.Class == delivery.Missing:
		return newHint(HintKafkaTopic, "The cluster has no such topic, or hides it from this user. Create it (topics are not created by sending), or allow this user Describe and Write on it.")
	case kafkaLogin[s.exchange.Code]:
		return newHint(HintKafkaLogin, "The cluster refused the login (%s). Check user name and password in the secret, and that the broker's port has the mechanism in the URL's sasl= enabled.", s.exchange.Code)
	case s.outcome.Class == delivery.Denied:
		return newHint(HintKafkaDenied, "The login worked, but this user may not write to the topic (%s). Allow it Describe and Write.", s.exchange.Code)
	case s.outcome.Class == delivery.TooLarge:
		return newHint(HintTooLarge, "The topic takes no record of this size (%s). Raise its max.message.bytes.", s.exchange.Code)
	case s.outcome.Class == delivery.Throttled:
		return newHint(HintThrottled, "The cluster asks for less (%s). Raise this client's quota, or give the endpoint a rate limit.", s.exchange.Code)
	case s.exchange.Code == "Not Enough Replicas", s.exchange.Code == "Not Enough Replicas After Append":
		return newHint(HintKafkaReplicas, "The topic has fewer replicas in sync than min.insync.replicas asks for. Bring its brokers back; deliveries are tried again.")
	case s.outcome.Class == delivery.Answered, s.outcome.Class == delivery.Invalid:
		return newHint(HintAnswered, "The cluster refused the record (%s). Deliveries are tried again where that can help.", s.exchange.Code)
	case s.outcome.Class == delivery.Protocol && logsIn:
		return newHint(HintKafkaLogin, "A broker closed the connection during the login, which is how brokers say no to a wrong user, password or mechanism. "+
			"Check the secret and the URL's sasl=; if the port wants TLS, add tls=true.")
	case s.outcome.Class == delivery.Protocol:
		return newHint(HintKafkaClosed, "A broker closed the connection. If its port wants TLS, add tls=true to the URL; if it wants a login, add sasl= and credentials.")
	}
	return brokerConnection(s, "the brokers")
}

// brokerConnection is for a broker that was not reached.
func brokerConnection(s failedAttempt, who string) Hint {
	if s.outcome.Class == delivery.Timeout {
		return newHint(HintTimeout, "There was no answer from %s within %s. Check addresses, ports and firewalls, and that it is not overloaded.", who, s.timeout.Round(100*time.Millisecond))
	}
	if s.protocol == "kafka" {
		// The URL may name several; the first stands for all.
		if u, err := url.Parse(s.url); err == nil {
			first, _, _ := strings.Cut(u.Host, ",")
			s.url = "kafka://" + first
		}
		return connectionHint(s)
	}
	var name *net.DNSError
	if errors.As(s.exchange.Cause, &name) {
		return newHint(HintDNSNotFound, "The host of %s has no address. Is the region spelt right?", who)
	}
	return newHint(HintUnreached, "%s could not be reached. If the function is in a VPC, it needs a way out (a NAT gateway or an endpoint).", strings.ToUpper(who[:1])+who[1:])
}
