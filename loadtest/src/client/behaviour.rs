//! How clients behave on their connections.

use std::{str::FromStr, time::Duration};

/// What one request's client does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Keeps its connection.
    KeepAlive,
    /// A connection of its own, closed after the answer.
    NewConnection,
    /// Reads the answer slowly.
    SlowReader,
    /// Goes away within some milliseconds, mostly before the answer.
    HangUp,
}

const NAMES: [(&str, Behaviour); 4] = [
    ("keep-alive", Behaviour::KeepAlive),
    ("new-connection", Behaviour::NewConnection),
    ("slow-reader", Behaviour::SlowReader),
    ("hang-up", Behaviour::HangUp),
];

/// Bytes a second that a slow reader takes.
pub(crate) const SLOW_BYTES_PER_SECOND: u64 = 4_096;
/// A hang-up comes at a chance instant up to this after the send.
pub(crate) const HANG_UP_WITHIN: Duration = Duration::from_millis(20);

/// Shares of the behaviours, in the order of their names.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Behaviours {
    weights: [f64; 4],
}

impl Default for Behaviours {
    fn default() -> Self {
        Self { weights: [1.0, 0.0, 0.0, 0.0] }
    }
}

impl Behaviours {
    /// One by chance.
    pub(crate) fn choose(&self, random: &mut fastrand::Rng) -> Behaviour {
        let sum: f64 = self.weights.iter().sum();
        if self.weights[0] >= sum {
            return Behaviour::KeepAlive;
        }
        let mut at = random.f64() * sum;
        for ((_, behaviour), weight) in NAMES.iter().zip(self.weights) {
            if at < weight {
                return *behaviour;
            }
            at -= weight;
        }
        Behaviour::KeepAlive
    }
}

impl FromStr for Behaviours {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut weights = [0.0; 4];
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, weight) = part.split_once('=').unwrap_or((part, "1"));
            let Some(at) = NAMES.iter().position(|(known, _)| *known == name) else {
                let known = NAMES.map(|(name, _)| name).join(", ");
                return Err(format!(
                    "{name:?} is not a behaviour; expected shares of {known}, like keep-alive=90,hang-up=10"
                ));
            };
            weights[at] = weight
                .parse()
                .ok()
                .filter(|weight: &f64| (0.0..=1e9).contains(weight))
                .ok_or_else(|| format!("{part:?}: expected a share like keep-alive=90"))?;
        }
        if weights.iter().sum::<f64>() <= 0.0 {
            return Err("no behaviour has a share above 0".to_owned());
        }
        Ok(Self { weights })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_kept_and_mistakes_told() {
        let behaviours: Behaviours = "keep-alive=3, hang-up=1".parse().expect("shares");
        let mut random = fastrand::Rng::with_seed(1);
        let hung_up = (0..40_000).filter(|_| behaviours.choose(&mut random) == Behaviour::HangUp).count();
        assert!((9_500..10_500).contains(&hung_up), "{hung_up}");
        assert!("keepalive=1".parse::<Behaviours>().expect_err("a mistyped name").contains("keep-alive"));
        assert!("keep-alive=-1".parse::<Behaviours>().is_err() && "hang-up=0".parse::<Behaviours>().is_err());
    }
}
