//! The sending side.

use std::io::Write;

use super::{
    Piece, put,
    stream::{END, FRAME_BYTES, HEAD, MAGIC, PIECES, VERSION, write_frame},
};
use crate::state::{Applied, State, StateError, codec};

impl State {
    /// Writes the state as it is when this is called, and says at which entry that is. Apply goes on meanwhile; memory is
    /// bounded by a frame and what no checkpoint holds yet.
    ///
    /// # Errors
    /// The disk, a stored value, or the sink ([`StateError::Stream`], which leaves the replica as good as it was).
    pub fn export(&self, sink: &mut dyn Write) -> Result<Applied, StateError> {
        let frozen = self.frozen()?;
        let mut head = MAGIC.to_vec();
        head.push(VERSION);
        head.extend_from_slice(&self.group.0.to_le_bytes());
        head.extend_from_slice(&frozen.vars.encode(0));
        write_frame(sink, HEAD, &head)?;
        let mut frame = Vec::with_capacity(FRAME_BYTES * 2);
        let mut counts = [0u64; 3];
        frozen.walk(&mut |piece| {
            match piece {
                Piece::Row(table, key, value) => {
                    counts[0] += 1;
                    frame.extend_from_slice(&[1, table as u8]);
                    put(&mut frame, key);
                    put(&mut frame, value);
                }
                Piece::Block(key, bytes) => {
                    counts[1] += 1;
                    frame.push(2);
                    frame.extend_from_slice(&key.to_bytes());
                    put(&mut frame, bytes);
                }
                Piece::Settled(day, id, settled) => {
                    counts[2] += 1;
                    frame.push(3);
                    frame.extend_from_slice(&day.to_le_bytes());
                    frame.extend_from_slice(&id.0.to_le_bytes());
                    put(&mut frame, &codec::encode(settled));
                }
            }
            if frame.len() >= FRAME_BYTES {
                write_frame(sink, PIECES, &frame)?;
                frame.clear();
            }
            Ok(())
        })?;
        if !frame.is_empty() {
            write_frame(sink, PIECES, &frame)?;
        }
        let end: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        write_frame(sink, END, &end)?;
        sink.flush().map_err(StateError::Stream)?;
        Ok(frozen.vars.applied)
    }
}
