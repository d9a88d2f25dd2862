//! Frames of a peer connection: length (u32 LE), kind (u8), number (u64 LE), body.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use super::wire::Fault;

/// Largest frame that is accepted: an append of `READ_BYTES` and one entry beyond it.
pub(super) const MAX_FRAME_BYTES: usize = 64 << 20;
/// kind and number.
const FRAME_HEAD_BYTES: usize = 1 + 8;

/// A frame as it was received.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) number: u64,
    pub(super) body: Bytes,
}

/// Appends something with its length (u32 LE) before it.
pub(super) fn put_part(out: &mut BytesMut, put: impl FnOnce(&mut BytesMut)) {
    let at = out.len();
    out.put_u32_le(0);
    put(out);
    let length = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Takes what [`put_part`] has put off the front of a body.
pub(super) fn take_part(body: &mut Bytes) -> Result<Bytes, Fault> {
    let cut = || Fault::Failed("message is cut".into());
    let head = body.first_chunk::<4>().ok_or_else(cut)?;
    let length = u32::from_le_bytes(*head) as usize;
    if body.len() - 4 < length {
        return Err(cut());
    }
    body.advance(4);
    Ok(body.split_to(length))
}

/// Appends a frame to a buffer.
pub(super) fn put_frame(out: &mut BytesMut, kind: u8, number: u64, body: impl FnOnce(&mut BytesMut)) {
    put_part(out, |out| {
        out.put_u8(kind);
        out.put_u64_le(number);
        body(out);
    });
}

/// Takes a whole frame off the front of a buffer, if there is one.
///
/// # Errors
/// A length beyond [`MAX_FRAME_BYTES`] or below the head's: the connection is of no use any more.
pub(super) fn take_frame(buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
    let Some(head) = buffer.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_le_bytes(*head) as usize;
    if !(FRAME_HEAD_BYTES..=MAX_FRAME_BYTES).contains(&length) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("frame of {length} bytes, expected {FRAME_HEAD_BYTES} to {MAX_FRAME_BYTES}"),
        ));
    }
    if buffer.len() < 4 + length {
        buffer.reserve(4 + length - buffer.len());
        return Ok(None);
    }
    buffer.advance(4);
    let mut frame = buffer.split_to(length).freeze();
    let kind = frame.get_u8();
    let number = frame.get_u64_le();
    Ok(Some(Frame { kind, number, body: frame }))
}

/// Reads the next frame; none at the end of the stream.
pub(super) async fn read_frame(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = take_frame(buffer)? {
            return Ok(Some(frame));
        }
        buffer.reserve(16 << 10);
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn frames_survive_any_cut_of_the_stream() {
        let mut bytes = BytesMut::new();
        put_frame(&mut bytes, 6, 42, |out| out.put_slice(b"hello"));
        put_frame(&mut bytes, 1, 43, |_| {});
        for cut in 0..bytes.len() {
            let mut buffer = BytesMut::from(&bytes[..cut]);
            let mut frames = Vec::new();
            while let Some(frame) = take_frame(&mut buffer).expect("valid") {
                frames.push(frame);
            }
            buffer.extend_from_slice(&bytes[cut..]);
            while let Some(frame) = take_frame(&mut buffer).expect("valid") {
                frames.push(frame);
            }
            assert_eq!(frames.len(), 2);
            assert_eq!((frames[0].kind, frames[0].number, &frames[0].body[..]), (6, 42, &b"hello"[..]));
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic_nor_ask_for_much_memory(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut buffer = BytesMut::from(&bytes[..]);
            while let Ok(Some(_)) = take_frame(&mut buffer) {}
            prop_assert!(buffer.capacity() <= MAX_FRAME_BYTES + 128);
        }
    }
}
