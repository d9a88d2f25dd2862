//! Other shares of routes and tiers, at the same total.

use std::{collections::BTreeSet, str::FromStr};

/// What a weight is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Subject {
    /// Paths that begin so.
    Path(String),
    /// Accounts of a tier.
    Tier(String),
}

/// Weights: `/v3/scan=2,/v3/health=0.5,tier:free=3`. What no rule names has weight 1; of two path rules the longer counts.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Mix {
    rules: Vec<(Subject, f64)>,
    /// Divides all weights, so that the total stays.
    mean: Option<f64>,
}

impl Mix {
    /// Whether nothing is weighted.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The weight of a request.
    pub(crate) fn weight(&self, path: &str, tier: &str) -> f64 {
        let (mut by_path, mut by_tier, mut longest) = (1.0, 1.0, 0);
        for (subject, weight) in &self.rules {
            match subject {
                Subject::Path(prefix) if path.starts_with(prefix.as_str()) && prefix.len() >= longest => {
                    (by_path, longest) = (*weight, prefix.len());
                }
                Subject::Tier(name) if name == tier => by_tier = *weight,
                _ => {}
            }
        }
        by_path * by_tier / self.mean.unwrap_or(1.0)
    }

    /// The rules that no such path and no such tier meets, as they are written.
    pub(crate) fn unmet(&self, paths: &BTreeSet<String>, tiers: &BTreeSet<String>) -> Vec<String> {
        let unmet = self.rules.iter().filter(|(subject, _)| match subject {
            Subject::Path(prefix) => !paths.iter().any(|path| path.starts_with(prefix.as_str())),
            Subject::Tier(name) => !tiers.contains(name),
        });
        unmet
            .map(|(subject, _)| match subject {
                Subject::Path(path) => path.clone(),
                Subject::Tier(name) => format!("tier:{name}"),
            })
            .collect()
    }

    /// Sets the mean weight of all requests.
    pub(crate) fn normalised(mut self, mean: f64) -> Self {
        self.mean = (mean > 0.0).then_some(mean);
        self
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rules = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let form = || format!("{part:?}: expected /path=WEIGHT or tier:NAME=WEIGHT");
            let (subject, weight) = part.rsplit_once('=').ok_or_else(form)?;
            let weight: f64 = weight.parse().ok().filter(|w| (0.0..=1e6).contains(w)).ok_or_else(form)?;
            let subject = match subject.strip_prefix("tier:") {
                Some(name) if !name.is_empty() => Subject::Tier(name.to_owned()),
                None if subject.starts_with('/') => Subject::Path(subject.to_owned()),
                _ => return Err(form()),
            };
            rules.push((subject, weight));
        }
        Ok(Self { rules, mean: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_that_meets_nothing_is_named() {
        let mix: Mix = "/v3=2,/v4=1,tier:free=3,tier:gold=2".parse().expect("weights");
        let set = |texts: [&str; 2]| texts.map(str::to_owned).into_iter().collect();
        assert_eq!(mix.unmet(&set(["/v3/scan", "/"]), &set(["free", "-"])), ["/v4", "tier:gold"]);
    }

    #[test]
    fn the_longest_path_and_the_tier_count() {
        let mix: Mix = "/v3=2, /v3/health=0.5, tier:free=3".parse().expect("weights");
        assert_eq!(mix.weight("/v3/scan", "gold"), 2.0);
        assert_eq!(mix.weight("/v3/health", "free"), 1.5);
        assert_eq!(mix.weight("/other", "gold"), 1.0);
        assert_eq!(mix.normalised(2.0).weight("/v3/scan", "gold"), 1.0);
        for wrong in ["v3=2", "/v3", "tier:=1", "/v3=-1", "/v3=x"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
