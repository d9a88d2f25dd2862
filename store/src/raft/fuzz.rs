//! Bytes of peers, for the fuzzer.

use bytes::{Bytes, BytesMut};
use minicbor::Decode;

use super::{
    codec, frame,
    status::Status,
    view_lease::{ViewAsk, ViewGrant},
    wait::Answer,
    wire::{self, AppendAnswer, AppendHead, Ballot, Fault, Greeting, Kind, WaitApplied},
};
use crate::model::{GroupId, NodeId};

/// A connection's frames, each read as a message.
pub(crate) fn frames(bytes: &[u8]) {
    let mut buffer = BytesMut::from(bytes);
    while let Ok(Some(frame)) = frame::take_frame(&mut buffer) {
        let _ = Kind::from_u8(frame.kind);
        append(frame.body.clone());
        messages(&frame.body);
    }
}

/// A message's body, read as each message that there is.
pub(crate) fn messages(bytes: &[u8]) {
    fn read<T: for<'b> Decode<'b, ()>>(bytes: &[u8]) {
        let _ = wire::from_cbor::<T>(bytes);
    }
    for read in [
        read::<Greeting>,
        read::<AppendHead>,
        read::<AppendAnswer>,
        read::<Ballot>,
        read::<Fault>,
        read::<WaitApplied>,
        read::<Status>,
        read::<ViewAsk>,
        read::<ViewGrant>,
        read::<GroupId>,
        read::<NodeId>,
    ] {
        read(bytes);
    }
    let _ = Answer::decode(bytes);
    let _ = codec::decode_vote(bytes);
    let _ = codec::decode_log_id(bytes);
    let _ = codec::decode_stored_membership(bytes);
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = codec::decode_entry(&bytes);
    let _ = wire::decode_propose(bytes.clone());
    append(bytes);
}

/// An append: a head and entries.
fn append(mut body: Bytes) {
    while let Ok(part) = frame::take_part(&mut body) {
        let _ = codec::decode_entry(&part);
    }
}
