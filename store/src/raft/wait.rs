//! How long a proposal is waited for, what it answers, and why it may end without an answer.

use bytes::Bytes;
use minicbor::{Decode, Encode};

use super::wire::Fault;
use crate::model::{Name, Reply};

/// How long a proposal is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Until a quorum has it on disk.
    Committed,
    /// Until the leader has applied it.
    Applied,
    /// Until every member has applied it, or can no longer decide by what was before: the write barrier (P3).
    Everywhere,
}

impl Wait {
    pub(super) fn from_u8(wait: u8) -> Option<Self> {
        [Self::Committed, Self::Applied, Self::Everywhere].get(usize::from(wait)).copied()
    }
}

/// A proposal without an answer.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum ProposeError {
    /// It did not happen.
    #[error("{0}")]
    NotDone(String),
    /// It may have happened, or may yet.
    #[error("outcome unknown: {0}")]
    Unknown(String),
}

/// How a write came to be in force everywhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(crate) struct Everywhere {
    /// Microseconds from the leader's own application until then.
    #[n(0)]
    pub(crate) took_us: u64,
    /// Names of the nodes that did not confirm it: their leases on what was before have run out.
    #[n(1)]
    pub(crate) waited_out: Vec<Name>,
}

/// What a proposal answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    /// Only when it was waited for everywhere.
    pub(crate) everywhere: Option<Everywhere>,
}

impl From<Reply> for Answer {
    fn from(reply: Reply) -> Self {
        Self { reply, everywhere: None }
    }
}

impl Answer {
    /// The reply, and behind it what else there is: who does not know of the second reads the first.
    pub(super) fn encode(&self) -> Bytes {
        let mut out = minicbor::to_vec(&self.reply).expect("writing to memory cannot fail");
        if let Some(everywhere) = &self.everywhere {
            minicbor::encode(everywhere, &mut out).expect("writing to memory cannot fail");
        }
        out.into()
    }

    pub(super) fn decode(body: &[u8]) -> Result<Self, Fault> {
        let unreadable = |error| Fault::Failed(format!("message cannot be decoded: {error}"));
        let mut decoder = minicbor::Decoder::new(body);
        let reply = decoder.decode().map_err(unreadable)?;
        let more = decoder.position() < body.len();
        let everywhere = more.then(|| decoder.decode()).transpose().map_err(unreadable)?;
        Ok(Self { reply, everywhere })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_travels_whole_and_is_read_by_who_knows_only_replies() {
        for everywhere in [None, Some(Everywhere { took_us: 7, waited_out: vec!["node-3".into()] })] {
            let answer = Answer { reply: Reply::Written(42), everywhere };
            let bytes = answer.encode();
            assert_eq!(Answer::decode(&bytes), Ok(answer));
            assert_eq!(minicbor::decode::<Reply>(&bytes).ok(), Some(Reply::Written(42)));
        }
    }
}
