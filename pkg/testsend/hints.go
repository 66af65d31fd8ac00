package testsend

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"

	"github.com/tidings-dev/tidings/pkg/delivery"
	"github.com/tidings-dev/tidings/pkg/destination"
)

// Hint explains a failure and how to fix it.
type Hint struct {
	Code HintCode `json:"code"` // stable
	Text string   `json:"text"`
}

// HintCode identifies a failure. It depends on error types, statuses and error codes,
// never on error texts.
type HintCode string

// The failures that have a hint.
const (
	HintInvalid   HintCode = "invalid"    // invalid endpoint settings
	HintBlocked   HintCode = "blocked"    // address not allowed by the guard
	HintTimeout   HintCode = "timeout"    // timeout in an unknown phase
	HintThrottled HintCode = "throttled"  // quota of a broker
	HintTooLarge  HintCode = "too_large"  // size limit of a broker
	HintAnswered  HintCode = "answered"   // any other error code of a broker
	HintUnreached HintCode = "no_connect" // connection failed for another reason
	HintNoToken   HintCode = "no_token"   // the token endpoint of OAuth2

	HintClientCert HintCode = "client_certificate" // the secret with the client certificate

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
	HintBusMissing   HintCode = "bus_missing"
	HintBusDenied    HintCode = "bus_access_denied"
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

// failedAttempt is the input of hint.
type failedAttempt struct {
	protocol  string
	url       string
	timeout   time.Duration
	now       time.Time
	throwaway bool // signed with a generated secret, unknown to the receiver
	outcome   delivery.Outcome
	exchange  *destination.Exchange
}

func newHint(code HintCode, format string, args ...any) Hint {
	return Hint{Code: code, Text: fmt.Sprintf(format, args...)}
}

// hint returns the hint for a failed attempt.
func hint(s failedAttempt) Hint {
	if s.exchange.Code == destination.CodeNoToken {
		return newHint(HintNoToken, "The endpoint's token URL gave no token, so that the receiver could not be called with one. Check the token URL, client id, client secret, scopes and audience of the endpoint's authentication; the error says what the token endpoint answered.")
	}
	if s.exchange.Code == destination.CodeNoCredentials && s.protocol == "http" {
		return newHint(HintClientCert, "The endpoint's client certificate cannot be used, and nothing was sent. Put a valid certificate, the certificates of its issuers, and the certificate's key into the secret, all in PEM.")
	}
	switch s.outcome.Class {
	case delivery.Invalid:
		if s.exchange.Code != "" {
			break // reported by a broker
		}
		return newHint(HintInvalid, "The endpoint's settings are invalid, or the event has a text that this protocol cannot carry. Correct it as the error says. Nothing was sent.")
	case delivery.Blocked:
		return newHint(HintBlocked, "The host's address is private, local or reserved. Webhooks are only sent to public addresses. "+
			"Use the receiver's public address. An operator can allow a private network with the parameter AllowNetworks.")
	}
	switch s.protocol {
	case "sqs":
		return sqsHint(s)
	case "eventbridge":
		return eventBridgeHint(s)
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

// connectionHint returns the hint for an attempt without a response, for HTTP and
// for connections to brokers.
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
	if s.outcome.Class == delivery.Timeout || s.outcome.Class == delivery.DNS && errors.Is(err, context.DeadlineExceeded) {
		return timeoutHint(s, host, port)
	}
	alert, alerted := destination.TLSAlert(err)
	switch {
	case errors.As(err, &name):
		if name.IsNotFound {
			return newHint(HintDNSNotFound, "The name %s has no address. Check its spelling in the URL, and that its domain has an A or AAAA record. A new record may take some minutes to appear.", name.Name)
		}
		return newHint(HintDNSFailed, "The name servers of %s returned an error. Check the domain's name server and DNSSEC records (for example with `dig %s`), then try again.", name.Name, name.Name)
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
			return newHint(HintTLSSelfSigned, "The certificate is self-signed. Use a certificate from a public authority, for example Let's Encrypt (free).")
		}
		return newHint(HintTLSUnknown, "The certificate's issuer is unknown. The usual cause is that the server does not send the intermediate certificate: configure the full chain (fullchain.pem). "+
			"Private authorities are not trusted.")
	case errors.As(err, &record), errors.Is(err, http.ErrSchemeMismatch):
		return newHint(HintTLSNotSpoken, "Port %s of %s does not speak TLS. Use the port that serves https (usually 443), or enable TLS on this port.", port, host)
	case alerted:
		return alertHint(alert)
	case errors.Is(err, syscall.ECONNREFUSED):
		return newHint(HintRefused, "%s refused the connection on port %s. Check that the receiver is running and listens on this port, and that no firewall rejects the connection.", host, port)
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return newHint(HintNoRoute, "There is no route to the address of %s. Check that its DNS record holds the right public address, and that it has an IPv4 address.", host)
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return newHint(HintReset, "The receiver reset the connection. Either it crashed, or a firewall or proxy in front of it rejected the request. Check its log at this time.")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return newHint(HintClosed, "The receiver accepted the request and closed the connection without a response. It probably crashed while handling the event. Check its log at this time.")
	case s.outcome.Class == delivery.TLS:
		return newHint(HintTLSHandshake, "The TLS handshake failed. Check the server's TLS settings, for example with `openssl s_client -connect %s:%s`.", host, port)
	case s.outcome.Class == delivery.Protocol && s.outcome.Error != destination.NotHTTP:
		return newHint(HintNotHTTP, "%s%s. Look in the log of the server on port %s of %s, or of the proxy in front of it.", strings.ToUpper(s.outcome.Error[:1]), s.outcome.Error[1:], port, host)
	case s.outcome.Class == delivery.Protocol:
		return newHint(HintNotHTTP, "The server on port %s of %s does not speak HTTP. Check the port in the URL.", port, host)
	}
	return newHint(HintUnreached, "Could not connect to port %s of %s. Check address, port and firewall.", port, host)
}

func timeoutHint(s failedAttempt, host, port string) Hint {
	after := s.timeout.Round(100 * time.Millisecond)
	switch s.exchange.Ended {
	case destination.PhaseDNS:
		return newHint(HintDNSTimeout, "The name servers of %s did not answer. Check the domain's name server records, then try again.", host)
	case destination.PhaseConnect:
		return newHint(HintConnectTimeout, "%s did not accept the connection on port %s within %s. Either a firewall or security group drops it, or the address is wrong. Open this port to the public "+
			"(the signature authenticates requests), or correct the URL.", host, port, after)
	case destination.PhaseTLS:
		return newHint(HintTLSTimeout, "Port %s of %s accepts connections, but the TLS handshake did not finish within %s. Check that this is a TLS port, and that the load balancer has a healthy server.", port, host, after)
	case destination.PhaseSend, destination.PhaseResponse:
		return newHint(HintAnswerTimeout, "The receiver got the whole request and did not respond within %s. Respond with 2xx at once and process the event afterwards. "+
			"If it needs longer, raise the endpoint's timeout (maximum 30s).", after)
	}
	return newHint(HintTimeout, "There was no response within %s. Check that %s can be reached from this deployment, and that it is not overloaded.", after, host)
}

func certificateHint(invalid x509.CertificateInvalidError, now time.Time) Hint {
	switch {
	case invalid.Reason == x509.Expired && invalid.Cert != nil && now.Before(invalid.Cert.NotBefore):
		return newHint(HintTLSNotYet, "The certificate is not valid before %s. Check the clock of the server that issued it, or wait.", invalid.Cert.NotBefore.UTC().Format(time.RFC3339))
	case invalid.Reason == x509.Expired && invalid.Cert != nil:
		return newHint(HintTLSExpired, "The certificate expired on %s. Renew it, reload the server so that it serves the new certificate, and check why it was not renewed automatically.",
			invalid.Cert.NotAfter.UTC().Format(time.DateOnly))
	case invalid.Reason == x509.Expired:
		return newHint(HintTLSExpired, "The certificate, or another one in its chain, has expired. Renew it and reload the server.")
	}
	return newHint(HintTLSNotServer, "The certificate is not valid for a server (key usage, chain or name constraints). Get a server certificate from a public authority.")
}

// alertHint returns the hint for a TLS alert (RFC 8446, section 6.2).
func alertHint(alert uint8) Hint {
	const (
		handshakeFailure    = 40
		badCertificate      = 42
		unsupported         = 43
		revoked             = 44
		expired             = 45
		unknownCertificate  = 46
		unknownAuthority    = 48
		accessDenied        = 49
		protocolVersion     = 70
		unrecognizedName    = 112
		certificateRequired = 116
	)
	switch alert {
	case protocolVersion, handshakeFailure:
		return newHint(HintTLSVersion, "The server offers no secure TLS version or cipher. Enable TLS 1.2 or 1.3.")
	case certificateRequired, badCertificate, unsupported, revoked, expired, unknownCertificate, unknownAuthority, accessDenied:
		return newHint(HintTLSClientCert, "The server requires a client certificate (mutual TLS) and got none, or refused it. Set the endpoint's client certificate, check that it is valid and that the server trusts its issuer, or disable this for the path and verify the signature instead.")
	case unrecognizedName:
		return newHint(HintTLSName, "The server has no certificate for this host name. Correct the name in the URL, or configure the server for it.")
	}
	return newHint(HintTLSHandshake, "The server aborted the TLS handshake. Check its log at this time, and its TLS settings.")
}

// verification returns advice for a rejected signature.
func verification(s failedAttempt) string {
	if s.throwaway {
		return "This test was signed with a generated secret, which the receiver does not have. Test the endpoint by its id, or pass its secret."
	}
	return "Compare the secret's fingerprint, verify over the raw body before any parsing, and check the receiver's clock (5 minutes are tolerated)."
}

// statusHint returns the hint for an HTTP response.
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
	case http.StatusSwitchingProtocols:
		return newHint(HintStatus, "The receiver switched to another protocol (101 Switching Protocols), as for a WebSocket. Only 2xx counts as success: let this path answer a POST, or correct the URL.")
	case http.StatusBadRequest:
		return newHint(HintBadRequest, "The receiver rejected the request (400 Bad Request). The response body may say why; often the signature check failed. %s", verification(s))
	case http.StatusUnauthorized:
		if scheme := get("WWW-Authenticate"); scheme != "" {
			kind, _, _ := strings.Cut(scheme, " ")
			return newHint(HintUnauthorized, "The receiver requires authentication (401 Unauthorized, %s), and did not accept what this endpoint sends. Set the endpoint's authentication, or exempt the path and verify the signature instead.", kind)
		}
		return newHint(HintUnauthorized, "The receiver rejected the signature, or requires authentication (401 Unauthorized). %s", verification(s))
	case http.StatusForbidden:
		return newHint(HintForbidden, "The receiver, or a firewall, CSRF check or bot filter in front of it, rejected the request (403 Forbidden). Exempt this path from such filters. If the signature check failed: %s", verification(s))
	case http.StatusNotFound:
		return newHint(HintNotFound, "The receiver does not serve this path (404 Not Found). Check the URL's path (spelling, capitals, trailing slash), and that the receiver's route is deployed.")
	case http.StatusMethodNotAllowed:
		allow := ""
		if list := get("Allow"); list != "" {
			allow = "; allowed: " + list
		}
		return newHint(HintMethod, "The path exists, but does not allow POST (405 Method Not Allowed%s). Register the route for POST, or correct the path.", allow)
	case http.StatusNotAcceptable:
		return newHint(HintNotAcceptable, "The receiver cannot respond in an acceptable format (406 Not Acceptable). Let it respond with any format: only the status counts.")
	case http.StatusRequestTimeout:
		return newHint(HintRequestTimeout, "The receiver timed out while reading the request (408 Request Timeout). Raise the timeout of the proxy in front of it.")
	case http.StatusConflict:
		return newHint(HintConflict, "The receiver reported a conflict (409 Conflict). If it has processed this event already, it should respond with 2xx: any other response is retried.")
	case http.StatusGone:
		return newHint(HintGone, "The receiver reported that this URL is permanently gone (410 Gone). A delivery would disable the endpoint. Set the new URL, or delete the endpoint.")
	case http.StatusRequestEntityTooLarge:
		return newHint(HintTooLargeHTTP, "The receiver, or a proxy in front of it, does not accept a body of %d bytes (413 Content Too Large). Allow at least 256 KiB (nginx: client_max_body_size).", bodyBytes(s))
	case http.StatusUnsupportedMediaType:
		return newHint(HintMediaType, "The receiver does not accept application/json (415 Unsupported Media Type). Let its route accept that content type; the body is JSON in UTF-8.")
	case http.StatusUnprocessableEntity:
		return newHint(HintUnprocessable, "The receiver rejected the body's content (422 Unprocessable Content). Compare it with the event's schema (`tidings type show TYPE`), and accept unknown types and fields.")
	case http.StatusTooManyRequests:
		return newHint(HintTooMany, "The receiver is rate limiting (429 Too Many Requests). A delivery waits as long as Retry-After says. Give the endpoint a rate limit that the receiver can handle.")
	case http.StatusBadGateway:
		return newHint(HintBadGateway, "The proxy in front of the receiver got no valid response from it (502 Bad Gateway). Check that the application is running and listens where the proxy expects it.")
	case http.StatusServiceUnavailable:
		return newHint(HintUnavailable, "The receiver is unavailable (503 Service Unavailable): overloaded, in maintenance, or without a healthy instance behind the load balancer. Deliveries are retried.")
	case http.StatusGatewayTimeout:
		return newHint(HintGatewayTimeout, "The proxy in front of the receiver timed out (504 Gateway Timeout). Respond with 2xx at once and process the event afterwards.")
	}
	if status >= 500 {
		return newHint(HintServerError, "The receiver failed while handling the event (%d). Check its log at this time; the response body may say more. Deliveries are retried.", status)
	}
	return newHint(HintStatus, "The receiver responded with %d. Only 2xx counts as success; any other response is retried.", status)
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
		why = " Only the trailing slash differs."
	}
	return newHint(HintRedirect, "The receiver redirects to %s (%d), which is not followed: a followed redirect can turn a POST into an empty GET. If that is the right address, set it as the endpoint's URL.%s",
		to.Redacted(), s.outcome.Status, why)
}

// unknownCaller are the error codes of AWS for credentials that it does not accept.
var unknownCaller = []string{"InvalidClientTokenId", "UnrecognizedClientException", "SignatureDoesNotMatch", "MissingAuthenticationToken", "OptInRequired"}

// callerHint returns the hint for an AWS service that did not get as far as the destination: a
// role that could not be assumed, or credentials that it does not accept.
func callerHint(s failedAttempt) (h Hint, failed bool) {
	switch {
	case operationIn(s.exchange.Cause, "STS") && s.outcome.Class != delivery.Timeout:
		return newHint(HintRoleDenied, "The role in role_arn could not be assumed (%s). Its trust policy must name the dispatch function's role and have the tenant as external id, "+
			"and its name must fit the parameter DestinationRoles (by default the stack's name and -webhooks-…).", s.exchange.Code), true
	case s.outcome.Class == delivery.Denied && slices.Contains(unknownCaller, s.exchange.Code):
		return newHint(HintCredentials, "AWS rejected our credentials (%s). Check that the region is enabled in this account.", s.exchange.Code), true
	}
	return Hint{}, false
}

// eventBridgeHint returns the hint for an error of EventBridge or STS.
func eventBridgeHint(s failedAttempt) Hint {
	if h, failed := callerHint(s); failed {
		return h
	}
	switch s.outcome.Class {
	case delivery.Missing:
		return newHint(HintBusMissing, "The event bus does not exist. Check its name, region and account in the URL.")
	case delivery.Denied:
		return newHint(HintBusDenied, "Sending to the event bus was denied (%s). Without role_arn, its name must begin with the stack's name and -webhooks-, and a bus of another account needs a policy "+
			"that allows events:PutEvents to the dispatch function's role; or set role_arn to a role that is allowed to send.", s.exchange.Code)
	case delivery.Invalid:
		return newHint(HintInvalid, "EventBridge rejected the event (%s).", s.exchange.Code)
	case delivery.TooLarge:
		return newHint(HintTooLarge, "The event exceeds EventBridge's size limit. Send fewer fields, or ids only (--thin).")
	case delivery.Throttled:
		return newHint(HintThrottled, "EventBridge throttled the request (%s). Deliveries are retried. Raise the account's quota of PutEvents, or give the endpoint a rate limit.", s.exchange.Code)
	case delivery.Answered:
		return newHint(HintAnswered, "EventBridge returned an error (%s). Deliveries are retried.", s.exchange.Code)
	}
	return brokerConnection(s, "EventBridge in the URL's region")
}

// sqsHint returns the hint for an error of SQS, STS or KMS.
func sqsHint(s failedAttempt) Hint {
	if h, failed := callerHint(s); failed {
		return h
	}
	switch s.outcome.Class {
	case delivery.Missing:
		return newHint(HintQueueMissing, "The queue does not exist. Check account, name (with .fifo for a FIFO queue) and region in the URL. SQS reports the same error if this account may not see the queue.")
	case delivery.Denied:
		if strings.HasPrefix(s.exchange.Code, "Kms") || strings.HasPrefix(s.exchange.Code, "KMS") {
			return newHint(HintKeyDenied, "Access to the queue's encryption key was denied (%s). Its key policy must allow kms:GenerateDataKey and kms:Decrypt to the dispatch function's role, or to the role in role_arn.", s.exchange.Code)
		}
		return newHint(HintQueueDenied, "Sending to the queue was denied (%s). Allow sqs:SendMessage to the dispatch function's role in the queue's policy, or set role_arn to a role that is allowed to send. "+
			"The parameter DestinationQueues must also cover the queue (by default the stack's name and -webhooks-…).", s.exchange.Code)
	case delivery.TooLarge:
		return newHint(HintTooLarge, "The message exceeds the queue's size limit. Raise its MaximumMessageSize.")
	case delivery.Throttled:
		return newHint(HintThrottled, "SQS throttled the request (%s). Deliveries are retried. A FIFO queue may need high throughput mode.", s.exchange.Code)
	case delivery.Answered:
		return newHint(HintAnswered, "SQS rejected the message (%s). Deliveries are retried.", s.exchange.Code)
	}
	return brokerConnection(s, "SQS in the URL's region")
}

// operationIn reports whether err wraps a failed call to the service.
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
		return newHint(HintPubSubTopic, "The topic does not exist. Check the project's id (not its name or number) and the topic's name in the URL, and create the topic if necessary.")
	case delivery.Denied:
		if s.exchange.Code == "PermissionDenied" {
			return newHint(HintPubSubDenied, "Publishing to the topic was denied. Grant roles/pubsub.publisher on it to this deployment's identity (docs/destinations.md has the command).")
		}
		return newHint(HintPubSubIdentity, "Google rejected this deployment's identity, or none is configured (%s). Set the parameter GoogleProvider to a workload identity provider that trusts the dispatch function's role; "+
			"docs/destinations.md has the steps.", s.exchange.Code)
	case delivery.Invalid:
		return newHint(HintPubSubSchema, "The topic rejected the message (%s). If it has a schema, the schema must allow the body. If it has its own encryption key, the key must be enabled.", s.exchange.Code)
	case delivery.TooLarge:
		return newHint(HintTooLarge, "The message exceeds Pub/Sub's size limit.")
	case delivery.Throttled:
		return newHint(HintThrottled, "The project's publish quota is used up. Raise it in the Google Cloud console, or give the endpoint a rate limit.")
	case delivery.Answered:
		return newHint(HintAnswered, "Pub/Sub returned an error (%s). Deliveries are retried.", s.exchange.Code)
	}
	return brokerConnection(s, "Pub/Sub")
}

// kafkaLogin contains the titles of Kafka's errors in a login, as in kafka-go.
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
		return newHint(HintKafkaTopic, "The topic does not exist, or this user may not see it. Create it (sending does not create topics), or allow this user Describe and Write on it.")
	case kafkaLogin[s.exchange.Code]:
		return newHint(HintKafkaLogin, "The cluster rejected the login (%s). Check the user name and password in the secret, and that the broker's port enables the mechanism in the URL's sasl=.", s.exchange.Code)
	case s.outcome.Class == delivery.Denied:
		return newHint(HintKafkaDenied, "The login worked, but this user may not write to the topic (%s). Allow it Describe and Write.", s.exchange.Code)
	case s.outcome.Class == delivery.TooLarge:
		return newHint(HintTooLarge, "The record exceeds the topic's size limit (%s). Raise its max.message.bytes.", s.exchange.Code)
	case s.outcome.Class == delivery.Throttled:
		return newHint(HintThrottled, "The cluster throttled the request (%s). Raise this client's quota, or give the endpoint a rate limit.", s.exchange.Code)
	case s.exchange.Code == "Not Enough Replicas", s.exchange.Code == "Not Enough Replicas After Append":
		return newHint(HintKafkaReplicas, "The topic has fewer in-sync replicas than min.insync.replicas requires. Restore its brokers. Deliveries are retried.")
	case s.outcome.Class == delivery.Answered, s.outcome.Class == delivery.Invalid:
		return newHint(HintAnswered, "The cluster rejected the record (%s). Deliveries are retried unless the error is permanent.", s.exchange.Code)
	case s.outcome.Class == delivery.Protocol && logsIn:
		return newHint(HintKafkaLogin, "A broker closed the connection during the login, which usually means a wrong user, password or mechanism. "+
			"Check the secret and the URL's sasl=. If the port requires TLS, add tls=true.")
	case s.outcome.Class == delivery.Protocol:
		return newHint(HintKafkaClosed, "A broker closed the connection. If its port requires TLS, add tls=true to the URL. If it requires a login, add sasl= and credentials.")
	}
	return brokerConnection(s, "the brokers")
}

// brokerConnection returns the hint for a failed connection to a broker.
func brokerConnection(s failedAttempt, who string) Hint {
	if s.outcome.Class == delivery.Timeout {
		return newHint(HintTimeout, "There was no response from %s within %s. Check addresses, ports and firewalls, and that it is not overloaded.", who, s.timeout.Round(100*time.Millisecond))
	}
	if s.protocol == "kafka" {
		// The hint shows the first broker only.
		if u, err := url.Parse(s.url); err == nil {
			first, _, _ := strings.Cut(u.Host, ",")
			s.url = "kafka://" + first
		}
		return connectionHint(s)
	}
	var name *net.DNSError
	if errors.As(s.exchange.Cause, &name) {
		return newHint(HintDNSNotFound, "The host of %s has no address. Check the spelling of the region.", who)
	}
	return newHint(HintUnreached, "%s could not be reached. If the function is in a VPC, it needs outbound access (a NAT gateway or a VPC endpoint).", strings.ToUpper(who[:1])+who[1:])
}
