package milepost

import (
	"crypto/tls"
	"math"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	grpcbackoff "google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
)

const (
	// keepaliveTime and keepaliveTimeout detect a dead connection during a call. The service admits
	// a ping every 10 s.
	keepaliveTime    = 60 * time.Second
	keepaliveTimeout = 10 * time.Second
	// Reconnecting this soon finds a returning service at once; gRPC waits up to two minutes.
	firstReconnectPause = 100 * time.Millisecond
	maxReconnectPause   = 2 * time.Second
	minConnectTimeout   = 5 * time.Second
	// roundRobin uses the addresses of a name, which stand for replicas, in turn.
	roundRobin = `{"loadBalancingConfig": [{"round_robin": {}}]}`
)

// openChannel returns a channel that connects with the first call.
func openChannel(address string, settings *settings) (*grpc.ClientConn, error) {
	plain := settings.insecure || (settings.tls == nil && isLoopback(address))
	options := []grpc.DialOption{
		grpc.WithUserAgent("milepost-client-go/" + Version),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveTime, Timeout: keepaliveTimeout,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: grpcbackoff.Config{
				BaseDelay: firstReconnectPause, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxReconnectPause,
			},
			MinConnectTimeout: minConnectTimeout,
		}),
		// The client retries by rules of its own, and the operator bounds the answers.
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithDefaultServiceConfig(roundRobin),
		grpc.WithDefaultCallOptions(
			grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.ForceCodecV2(newCodec())),
	}
	if plain {
		// A proxy would see the API key.
		options = append(options,
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	} else {
		config := settings.tls
		if config == nil {
			config = &tls.Config{MinVersion: tls.VersionTLS12}
		}
		options = append(options, grpc.WithTransportCredentials(credentials.NewTLS(config.Clone())))
	}
	if settings.token != nil {
		options = append(options, grpc.WithPerRPCCredentials(&bearer{settings.token, !plain, settings.deadline}))
	}
	return grpc.NewClient(address, append(options, settings.dialOptions...)...)
}

// isTarget returns false for an empty address and for a URL, after which gRPC would look in vain.
func isTarget(address string) bool {
	isURL := strings.HasPrefix(address, "http://") || strings.HasPrefix(address, "https://")
	return address != "" && !isURL
}

// isLoopback returns true if every connection to the address stays on this machine.
func isLoopback(address string) bool {
	if strings.HasPrefix(address, "unix:") || strings.HasPrefix(address, "unix-abstract:") {
		return true
	}
	address = strings.TrimPrefix(address, "passthrough:///")
	address = strings.TrimPrefix(strings.TrimPrefix(address, "dns:///"), "dns:")
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = strings.TrimSuffix(strings.TrimPrefix(address, "["), "]")
	}
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || (ip != nil && ip.IsLoopback())
}
