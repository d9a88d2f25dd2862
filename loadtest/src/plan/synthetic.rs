//! Traffic without a trace: a shape, some requests with weights, keys by chance.

use std::sync::Arc;

use anyhow::{Result, ensure};

use super::{Arrival, Keys, Mix, Principal, Schedule, Spec};
use crate::{measure::Labels, shape::Arrivals};

/// A schedule from a shape.
#[derive(Debug)]
pub(crate) struct Synthetic {
    arrivals: Arrivals,
    /// With the weights summed up to each.
    specs: Vec<(f64, Arc<Spec>)>,
    principals: Vec<(f64, Arc<Principal>)>,
    random: fastrand::Rng,
}

impl Synthetic {
    /// Of these requests, each with its weight.
    ///
    /// # Errors
    /// Nothing has a weight.
    pub(crate) fn schedule(
        arrivals: Arrivals,
        specs: &[(f64, Arc<Spec>)],
        keys: &Keys,
        mix: &Mix,
        labels: &Labels,
        seed: u64,
    ) -> Result<Schedule> {
        let specs = specs.iter().map(|(weight, spec)| (weight * mix.weight(spec.uri.path(), ""), spec.clone()));
        let principals = keys.all().iter();
        let principals = principals.map(|principal| (mix.weight("", &labels.name(principal.tier)), principal.clone()));
        let (specs, principals) = (summed(specs), summed(principals));
        ensure!(specs.last().is_some_and(|(sum, _)| *sum > 0.0), "no request has a weight above 0");
        ensure!(principals.last().is_some_and(|(sum, _)| *sum > 0.0), "no key has a weight above 0");
        Ok(Box::new(Self { arrivals, specs, principals, random: fastrand::Rng::with_seed(seed) }))
    }
}

impl Iterator for Synthetic {
    type Item = Result<Arrival>;

    fn next(&mut self) -> Option<Self::Item> {
        let due_ns = self.arrivals.next()?;
        let spec = choose(&self.specs, &mut self.random).clone();
        let principal = choose(&self.principals, &mut self.random).clone();
        Some(Ok(Arrival { due_ns, spec, principal }))
    }
}

fn summed<T>(of: impl Iterator<Item = (f64, T)>) -> Vec<(f64, T)> {
    let mut sum = 0.0;
    let add = |(weight, of): (f64, T)| {
        sum += weight;
        (sum, of)
    };
    of.map(add).collect()
}

fn choose<'a, T>(of: &'a [(f64, T)], random: &mut fastrand::Rng) -> &'a T {
    if let [(_, one)] = of {
        return one;
    }
    let (sum, last) = of.last().expect("not empty: checked when the schedule was made");
    let at = random.f64() * sum;
    of.get(of.partition_point(|(sum, _)| *sum <= at)).map_or(last, |(_, of)| of)
}
