//! The times of the arrivals, from a curve alone.

use super::Curve;

/// How arrivals are spread under the curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Process {
    /// Evenly: arrival `k` where the integral is `k`.
    #[default]
    Uniform,
    /// As independent clients are: exponential gaps (seeded).
    Poisson,
}

/// An iterator over the arrivals' times, in nanoseconds since the start.
#[derive(Debug)]
pub(crate) struct Arrivals {
    curve: Curve,
    process: Process,
    random: fastrand::Rng,
    /// The integral at the next one.
    next: f64,
    hint: usize,
}

impl Arrivals {
    /// Those of a curve.
    pub(crate) fn new(curve: Curve, process: Process, seed: u64) -> Self {
        let mut arrivals = Self { curve, process, random: fastrand::Rng::with_seed(seed), next: 0.0, hint: 0 };
        if process == Process::Poisson {
            arrivals.next = arrivals.gap();
        }
        arrivals
    }

    fn gap(&mut self) -> f64 {
        match self.process {
            Process::Uniform => 1.0,
            // 1 - f64() is never 0.
            Process::Poisson => -(1.0 - self.random.f64()).ln(),
        }
    }
}

impl Iterator for Arrivals {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let seconds = self.curve.time_of(self.next, &mut self.hint)?;
        self.next += self.gap();
        Some((seconds * 1e9).round() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_arrivals_are_where_the_old_formula_put_them() {
        let times: Vec<u64> = Arrivals::new(Curve::hold(500.0, 2.0), Process::Uniform, 0).collect();
        assert_eq!(times.len(), 1_000);
        for (n, time) in times.iter().enumerate() {
            assert_eq!(*time, n as u64 * 2_000_000);
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_the_spread_and_repeat_with_their_seed() {
        let times = |seed| Arrivals::new(Curve::hold(1_000.0, 100.0), Process::Poisson, seed).collect::<Vec<u64>>();
        let (first, again, other) = (times(7), times(7), times(8));
        assert_eq!(first, again);
        assert_ne!(first, other);
        assert!((first.len() as f64 - 100_000.0).abs() < 5.0 * 100_000f64.sqrt(), "{}", first.len());
        let gaps: Vec<f64> = first.windows(2).map(|pair| (pair[1] - pair[0]) as f64 / 1e6).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
        // Of an exponential: deviation = mean = 1 ms.
        assert!((variance.sqrt() / mean - 1.0).abs() < 0.05, "{} {mean}", variance.sqrt());
    }
}
