package milepost

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"google.golang.org/grpc"
)

// DefaultDeadline bounds one call, with all its tries.
const DefaultDeadline = 10 * time.Second

// settings are what the options of a client set.
type settings struct {
	token       TokenSource
	tls         *tls.Config
	insecure    bool
	deadline    time.Duration
	dialOptions []grpc.DialOption
	err         error
}

// Option sets something of a [Client].
type Option func(*settings)

// WithAPIKey sends an API key, or a token (JWT), with every call. It is never shown.
func WithAPIKey(key string) Option {
	return func(s *settings) {
		if !isWord(key) {
			s.err = errors.Join(s.err, errBadKey)
		}
		s.token = func(context.Context) (string, error) { return key, nil }
	}
}

// WithTokenSource sends the token that the source returns with every call, so that it can be
// renewed.
func WithTokenSource(source TokenSource) Option {
	return func(s *settings) { s.token = source }
}

// WithTLS encrypts with this configuration, for an authority or a client certificate of your own.
// Without it, the client uses TLS with the roots of the system, and no encryption to the loopback
// interface.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) { s.tls = config }
}

// WithInsecure allows an unencrypted channel to another machine, which exposes the API key.
func WithInsecure() Option {
	return func(s *settings) { s.insecure = true }
}

// WithDeadline bounds each call, with all its tries, instead of [DefaultDeadline]. The context of a
// call may end it earlier.
func WithDeadline(deadline time.Duration) Option {
	return func(s *settings) { s.deadline = deadline }
}

// WithDialOptions adds options of gRPC, such as interceptors, or the stats handler of OpenTelemetry.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) { s.dialOptions = append(s.dialOptions, options...) }
}

func (s *settings) check() error {
	if s.tls != nil && s.insecure {
		s.err = errors.Join(s.err, errors.New("milepost: WithTLS and WithInsecure exclude each other"))
	}
	if s.deadline <= 0 {
		s.err = errors.Join(s.err, errors.New("milepost: the deadline of a call is not positive"))
	}
	return s.err
}
