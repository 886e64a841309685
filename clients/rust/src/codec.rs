//! The encoding of messages.

use std::marker::PhantomData;

use prost::{DecodeError, Message, bytes::Buf};
use tonic::{
    Status,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// A response that was received, or the problem if it cannot be decoded.
///
/// gRPC itself reports that like a broken call, which would be sent again although the service has
/// accepted it.
pub(crate) type Received<T> = Result<T, DecodeError>;

/// The codec of requests `E` and responses `D`.
pub(crate) struct ProtoCodec<E, D>(PhantomData<(E, D)>);

impl<E, D> Default for ProtoCodec<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message + 'static, D: Message + Default + 'static> Codec for ProtoCodec<E, D> {
    type Encode = E;
    type Decode = Received<D>;
    type Encoder = ProtoEncoder<E>;
    type Decoder = ProtoDecoder<D>;

    fn encoder(&mut self) -> Self::Encoder {
        ProtoEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProtoDecoder(PhantomData)
    }
}

pub(crate) struct ProtoEncoder<E>(PhantomData<E>);

impl<E: Message> Encoder for ProtoEncoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message.encode(buffer).map_err(|error| Status::internal(error.to_string()))?;
        Ok(())
    }
}

pub(crate) struct ProtoDecoder<D>(PhantomData<D>);

impl<D: Message + Default> Decoder for ProtoDecoder<D> {
    type Item = Received<D>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Received<D>>, Status> {
        let message = buffer.copy_to_bytes(buffer.remaining()); // all of it, whatever it holds
        Ok(Some(D::decode(message)))
    }
}
