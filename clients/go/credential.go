package milepost

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// TokenSource returns the API key or the token (JWT) of a call. It is called for every try of every
// call, and should keep a token for as long as it is valid. Its error is as temporary as a service that
// cannot be reached: the call is tried again within its deadline, and a worker goes on.
type TokenSource func(ctx context.Context) (string, error)

// errBadKey does not show the key.
var errBadKey = errors.New(
	"milepost: an API key is one word of ASCII: this one is empty, or has a space or a line end",
)

// bearer puts the token into the metadata of every call.
type bearer struct {
	token  TokenSource
	secure bool
	// timeout bounds the source: a watch and the progress stream have no deadline.
	timeout time.Duration
}

// GetRequestMetadata returns the metadata with the token of this call.
func (b *bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	ctx, cancel := context.WithTimeout(ctx, b.timeout)
	defer cancel()
	token, err := b.token(ctx)
	if err != nil { // as temporary as a service that does not answer
		return nil, status.Errorf(codes.Unavailable, "the token source failed: %v", err)
	}
	if !isWord(token) {
		return nil, errBadKey
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity returns true unless the channel is meant to be unencrypted.
func (b *bearer) RequireTransportSecurity() bool { return b.secure }

func isWord(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' })
}
