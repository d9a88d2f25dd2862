//! What a client does with a refusal.

use std::time::Duration;

use super::answer::Answer;

/// Most tries of a profile, the first among them.
const MAX_TRIES: u32 = 5;
/// Longest wait that a profile obeys; a client that is told to come back tomorrow gives up.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// What the scan SDKs sleep.
const SDK_SLEEP: Duration = Duration::from_secs(1);

/// A profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Retry {
    /// Every refusal is final.
    #[default]
    None,
    /// 429 and 503: waits as `Retry-After` says (up to 60 s), up to 5 tries.
    HonourRetryAfter,
    /// What the scan SDKs do: on 429 sleeps 1 s whatever the answer says, up to 5 tries.
    Sdk,
}

impl Retry {
    /// How long to wait before the next try, if there is one.
    pub(crate) fn wait(self, answer: &Answer, tries: u32) -> Option<Duration> {
        if tries >= MAX_TRIES {
            return None;
        }
        match self {
            Self::None => None,
            Self::HonourRetryAfter => {
                answer.retry_after.filter(|wait| matches!(answer.status, 429 | 503) && *wait <= LONGEST_WAIT)
            }
            Self::Sdk => (answer.status == 429).then_some(SDK_SLEEP),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn profiles_wait_as_they_are_known_to() {
        let answer = |status, seconds: Option<u64>| Answer {
            status,
            retry_after: seconds.map(Duration::from_secs),
            ..Answer::default()
        };
        let refused = answer(429, Some(3));
        assert_eq!(Retry::None.wait(&refused, 1), None);
        assert_eq!(Retry::HonourRetryAfter.wait(&refused, 1), Some(Duration::from_secs(3)));
        assert_eq!(Retry::HonourRetryAfter.wait(&answer(429, None), 1), None);
        assert_eq!(Retry::HonourRetryAfter.wait(&answer(429, Some(3_600)), 1), None);
        assert_eq!(Retry::HonourRetryAfter.wait(&answer(200, Some(3)), 1), None);
        assert_eq!(Retry::Sdk.wait(&refused, 4), Some(SDK_SLEEP));
        assert_eq!((Retry::Sdk.wait(&refused, 5), Retry::Sdk.wait(&answer(503, Some(1)), 1)), (None, None));
    }
}
