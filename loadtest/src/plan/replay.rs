//! A trace as a schedule: time by `--speed`, arrivals by `--amplitude`, a shape and `--mix`. The two do not touch each other:
//! speed moves what is there, amplitude adds or thins at the same clock.

use std::{collections::HashMap, iter::Peekable, sync::Arc};

use anyhow::Result;

use super::{Amplitude, Arrival, Factor, Keys, Mix, Schedule, Spec, factor::mixed, keys::hash};
use crate::{
    measure::Labels,
    shape::Curve,
    trace::{Body, Record},
};

/// Requests that are kept to be used again; all are forgotten at the bound.
const MAX_SPECS: usize = 10_000;
/// And likewise at this bound of the bytes of their bodies.
const MAX_SPEC_BYTES: usize = 32 * 1024 * 1024;
/// Copies of a record are spread up to the next one, and over this at most.
const SPREAD_NS: u64 = 1_000_000_000;

/// How a trace is replayed.
#[derive(Debug)]
pub(crate) struct ReplaySettings {
    /// Time runs so many times faster.
    pub(crate) speed: f64,
    /// So many times the arrivals.
    pub(crate) amplitude: f64,
    /// Whose the added ones are.
    pub(crate) mode: Amplitude,
    /// A factor over time; the run ends with it.
    pub(crate) shape: Option<Curve>,
    /// Other shares.
    pub(crate) mix: Mix,
    /// Seed of all chance.
    pub(crate) seed: u64,
}

impl ReplaySettings {
    /// How many arrivals a record has that is due then; nothing after the end of the shape.
    fn factor(&self, due: u64) -> Option<f64> {
        let seconds = due as f64 / 1e9;
        match &self.shape {
            Some(shape) if seconds > shape.seconds() => None,
            Some(shape) => Some(self.amplitude * shape.rate(seconds)),
            None => Some(self.amplitude),
        }
    }

    /// Whether records have clones.
    pub(crate) fn clones(&self) -> bool {
        self.mode == Amplitude::Clone && self.amplitude * self.shape.as_ref().map_or(1.0, Curve::peak) > 1.0
    }
}

/// Records on their way.
pub(crate) struct Replay<I: Iterator> {
    records: Peekable<I>,
    settings: ReplaySettings,
    factor: Factor,
    keys: Keys,
    labels: Labels,
    specs: HashMap<(String, String, u64), Arc<Spec>>,
    spec_bytes: usize,
    /// Copies of the record that is being sent, last first.
    waiting: Vec<Arrival>,
}

impl<I: Iterator<Item = Result<Record>> + Send + 'static> Replay<I> {
    /// The schedule of a trace's records, which come in the order of their times.
    pub(crate) fn schedule(records: I, settings: ReplaySettings, keys: Keys, labels: Labels) -> Schedule {
        Box::new(Self::new(records, settings, keys, labels))
    }

    fn new(records: I, settings: ReplaySettings, keys: Keys, labels: Labels) -> Self {
        let factor = Factor::new(settings.mode, settings.seed);
        Self {
            records: records.peekable(),
            settings,
            factor,
            keys,
            labels,
            specs: HashMap::new(),
            spec_bytes: 0,
            waiting: Vec::new(),
        }
    }

    fn due(&self, t: u64) -> u64 {
        (t as f64 / self.settings.speed) as u64
    }

    /// Whether there are keys for all clones: a walk through the records that sends nothing.
    ///
    /// # Errors
    /// There are not; or the trace cannot be read.
    pub(crate) fn check(records: I, settings: &ReplaySettings, mut keys: Keys) -> Result<()> {
        let mut factor = Factor::new(settings.mode, settings.seed);
        for record in records {
            let record = record?;
            let due = (record.t as f64 / settings.speed) as u64;
            let Some(times) = settings.factor(due) else { break };
            let pseudonym = record.k.as_deref().or(record.a.as_deref()).unwrap_or("");
            keys.stand_in(pseudonym);
            for copy in 1..factor.copies(times, pseudonym) {
                keys.clone_of(pseudonym, copy)?;
            }
        }
        Ok(())
    }

    /// Puts the copies of a record into `waiting`; false when the run is over.
    fn expand(&mut self, record: Record) -> Result<bool> {
        let due = self.due(record.t);
        let Some(factor) = self.settings.factor(due) else { return Ok(false) };
        let pseudonym = record.k.as_deref().or(record.a.as_deref()).unwrap_or("").to_owned();
        let original = self.keys.stand_in(&pseudonym);
        if !self.settings.mix.is_empty() {
            let path = record.p.split('?').next().unwrap_or_default();
            // Shares are of requests, never of accounts: thinned apart from the amplitude.
            let weight = self.settings.mix.weight(path, &self.labels.name(original.tier));
            let mut whole = weight.floor() as u32;
            let chance = (mixed(hash(&record.p) ^ record.t ^ self.settings.seed) >> 11) as f64 / (1u64 << 53) as f64;
            whole += u32::from(chance < weight - weight.floor());
            if whole == 0 {
                return Ok(true);
            }
            if whole > 1 {
                return self.push(record, due, &pseudonym, factor, whole);
            }
        }
        self.push(record, due, &pseudonym, factor, 1)
    }

    fn push(&mut self, record: Record, due: u64, pseudonym: &str, factor: f64, times: u32) -> Result<bool> {
        let copies = self.factor.copies(factor, pseudonym);
        if copies == 0 {
            return Ok(true);
        }
        let next = self.records.peek().and_then(|next| next.as_ref().ok()).map(|next| next.t);
        let gap = next.map_or(0, |next| self.due(next).saturating_sub(due).min(SPREAD_NS));
        let spec = self.spec(record)?;
        let all = u64::from(copies) * u64::from(times);
        for n in (0..all).rev() {
            let copy = u32::try_from(n).unwrap_or(u32::MAX) % copies;
            let principal = match self.settings.mode {
                Amplitude::Clone if copy > 0 => self.keys.clone_of(pseudonym, copy)?,
                _ => self.keys.stand_in(pseudonym),
            };
            let due_ns = due + (u128::from(gap) * u128::from(n) / u128::from(all)) as u64;
            self.waiting.push(Arrival { due_ns, spec: spec.clone(), principal });
        }
        Ok(true)
    }

    fn spec(&mut self, record: Record) -> Result<Arc<Spec>> {
        let bytes = match &record.b {
            None => Some(0),
            Some(Body::Bytes(bytes)) => Some(*bytes),
            Some(Body::Text(_)) => None,
        };
        let (Some(bytes), None) = (bytes, &record.h) else {
            let body = record.b.as_ref().map(Body::content).unwrap_or_default();
            let headers = record.h.unwrap_or_default();
            let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
            return Ok(Arc::new(Spec::new(&record.m, &record.p, headers, body)?));
        };
        let key = (record.m, record.p, bytes);
        if let Some(spec) = self.specs.get(&key) {
            return Ok(spec.clone());
        }
        let spec = Arc::new(Spec::new(&key.0, &key.1, [], Body::Bytes(bytes).content())?);
        self.spec_bytes += spec.body.len();
        if self.specs.len() >= MAX_SPECS || self.spec_bytes > MAX_SPEC_BYTES {
            self.specs.clear();
            self.spec_bytes = spec.body.len();
        }
        self.specs.insert(key, spec.clone());
        Ok(spec)
    }
}

impl<I: Iterator<Item = Result<Record>> + Send + 'static> Iterator for Replay<I> {
    type Item = Result<Arrival>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(arrival) = self.waiting.pop() {
                return Some(Ok(arrival));
            }
            let record = match self.records.next()? {
                Ok(record) => record,
                Err(error) => return Some(Err(error)),
            };
            match self.expand(record) {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::KeyLine;

    fn keys(count: usize, labels: &Labels) -> Keys {
        let line = |n| KeyLine { k: None, key: format!("key-{n}"), account: None, tier: None };
        Keys::new((0..count).map(line).collect(), labels).expect("keys")
    }

    fn replay(settings: ReplaySettings, key_count: usize) -> Vec<Arrival> {
        let labels = Labels::default();
        let record = |n: u64| Record {
            t: n * 10_000_000,
            m: "GET".into(),
            p: format!("/{}", n % 3),
            k: Some(format!("k{}", n % 5)),
            ..Record::default()
        };
        let records = (0..1_000).map(move |n| Ok(record(n)));
        let keys = keys(key_count, &labels);
        Replay::schedule(records, settings, keys, labels).collect::<Result<_>>().expect("a schedule")
    }

    fn settings() -> ReplaySettings {
        ReplaySettings {
            speed: 1.0,
            amplitude: 1.0,
            mode: Amplitude::Intensify,
            shape: None,
            mix: Mix::default(),
            seed: 3,
        }
    }

    /// Ten thousand bodies of any size were kept to be used again: of 2,000 with a megabyte each, two gigabytes.
    #[test]
    fn bodies_that_are_made_up_are_kept_by_their_bytes() {
        let labels = Labels::default();
        let record = |n| Record {
            t: n,
            m: "POST".into(),
            p: "/".into(),
            b: Some(Body::Bytes(1_000_000 + n)),
            ..Record::default()
        };
        let mut replay = Replay::new((0..100).map(move |n| Ok(record(n))), settings(), keys(1, &labels), labels);
        for n in 0..100 {
            assert_eq!(replay.next().expect("one").expect("a request").spec.body.len(), 1_000_000 + n);
            let kept: usize = replay.specs.values().map(|spec| spec.body.len()).sum();
            assert!(kept > 0 && kept <= MAX_SPEC_BYTES, "{n}: {kept}");
        }
    }

    fn by_key(arrivals: &[Arrival]) -> HashMap<u32, usize> {
        arrivals.iter().fold(HashMap::new(), |mut counts, arrival| {
            *counts.entry(arrival.principal.number).or_default() += 1;
            counts
        })
    }

    #[test]
    fn speed_moves_and_amplitude_adds_and_neither_does_the_other() {
        let plain = replay(settings(), 5);
        assert_eq!((plain.len(), plain[999].due_ns), (1_000, 9_990_000_000));
        let fast = replay(ReplaySettings { speed: 2.0, ..settings() }, 5);
        assert_eq!((fast.len(), fast[999].due_ns), (1_000, 4_995_000_000));
        let strong = replay(ReplaySettings { amplitude: 3.0, ..settings() }, 5);
        assert_eq!((strong.len(), strong[0].due_ns, strong[2997].due_ns), (3_000, 0, 9_990_000_000));
        assert!(strong.is_sorted_by_key(|arrival| arrival.due_ns));
        assert_eq!(by_key(&strong), (0..5).map(|n| (n, 600)).collect());
    }

    #[test]
    fn clones_are_new_accounts_at_the_same_rate() {
        let cloned = replay(ReplaySettings { amplitude: 3.0, mode: Amplitude::Clone, ..settings() }, 15);
        assert_eq!(by_key(&cloned), (0..15).map(|n| (n, 200)).collect());
    }

    #[test]
    fn too_few_keys_for_clones_are_told_before_the_run() {
        let check = |shape: Option<&str>, amplitude: f64, key_count: usize| {
            let shape = shape.and_then(|text| crate::shape::parse(text, crate::shape::Unit::Factor).ok());
            let settings = ReplaySettings { shape, amplitude, mode: Amplitude::Clone, ..settings() };
            let record = |n: u64| Record { t: n * 10_000_000, k: Some(format!("k{}", n % 5)), ..Record::default() };
            let keys = keys(key_count, &Labels::default());
            (settings.clones(), Replay::check((0..1_000).map(move |n| Ok(record(n))), &settings, keys))
        };
        assert!(matches!(check(None, 3.0, 15), (true, Ok(()))));
        assert!(matches!(check(None, 1.0, 1), (false, _)));
        let refused = check(Some("hold 1x 2s; step 3x 1s"), 1.0, 14).1.expect_err("one is missing");
        assert!(refused.is::<crate::exit::Usage>() && refused.to_string().contains("--shape"), "{refused}");
        // The peak is behind the trace's end.
        assert!(check(Some("hold 1x 20s; step 3x 1s"), 1.0, 5).1.is_ok());
    }

    #[test]
    fn a_shape_is_a_factor_and_ends_the_run() {
        let shape = crate::shape::parse("hold 1x 2s; step 4x 1s; hold 0.5x 2s", crate::shape::Unit::Factor).ok();
        let shaped = replay(ReplaySettings { shape, ..settings() }, 5);
        let between = |from: f64, to: f64| {
            let due = shaped.iter().map(|arrival| arrival.due_ns as f64 / 1e9);
            due.filter(|due| (from..to).contains(due)).count()
        };
        // The integral is continuous, so a record on the border may belong to either side.
        assert!(between(0.0, 2.0).abs_diff(200) <= 4 && between(2.0, 3.0).abs_diff(400) <= 4);
        assert!((70..130).contains(&between(3.0, 5.0)) && between(5.02, 99.0) == 0);
    }

    #[test]
    fn a_mix_changes_shares_and_keeps_the_total() {
        // /0, /1, /2 have a third each; /0 three times as often: means (3 + 1 + 1) / 3.
        let mix = "/0=3".parse::<Mix>().expect("a mix").normalised(5.0 / 3.0);
        let mixed = replay(ReplaySettings { mix, ..settings() }, 5);
        let share = mixed.iter().filter(|arrival| arrival.spec.uri.path() == "/0").count() as f64 / mixed.len() as f64;
        assert!((0.57..0.63).contains(&share) && (930..1_070).contains(&mixed.len()), "{share} of {}", mixed.len());
    }
}
