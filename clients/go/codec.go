package milepost

import (
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // registers the codec
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"
)

// received is a response that was received, and the problem if it cannot be decoded. gRPC itself
// reports that like a broken call, which would be sent again although the service accepted it.
type received struct {
	message proto.Message
	problem error
}

// codec is the codec of gRPC, which also decodes into a received.
type codec struct{ encoding.CodecV2 }

func newCodec() codec { return codec{encoding.GetCodecV2("proto")} }

// Unmarshal decodes the data into v.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	answer, ok := v.(*received)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	answer.problem = c.CodecV2.Unmarshal(data, answer.message)
	return nil
}
