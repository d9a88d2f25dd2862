//! A rate over time in pieces, its integral, and the inverse of that.
//!
//! Source of the method: time rescaling of an inhomogeneous arrival process (Çinlar, "Introduction to Stochastic Processes",
//! 1975): arrival `k` is due where the integral of the rate reaches `k`.

/// How a piece goes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Form {
    /// A straight line.
    Linear {
        /// At its start.
        from: f64,
        /// At its end.
        to: f64,
    },
    /// Between two levels, from the middle upwards first.
    Sine {
        /// The lowest.
        low: f64,
        /// The highest.
        high: f64,
        /// Seconds of a whole wave.
        period: f64,
    },
}

/// A part of a curve.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Piece {
    /// How long it lasts.
    pub(crate) seconds: f64,
    /// How it goes.
    pub(crate) form: Form,
}

impl Piece {
    fn rate(&self, t: f64) -> f64 {
        match self.form {
            Form::Linear { from, to } => from + (to - from) * t / self.seconds,
            Form::Sine { low, high, period } => {
                let middle = f64::midpoint(low, high);
                middle + (high - low) / 2.0 * (std::f64::consts::TAU * t / period).sin()
            }
        }
    }

    /// The integral from its start to `t`.
    fn area(&self, t: f64) -> f64 {
        match self.form {
            Form::Linear { from, to } => from * t + (to - from) * t * t / (2.0 * self.seconds),
            Form::Sine { low, high, period } => {
                let wave = std::f64::consts::TAU / period;
                f64::midpoint(low, high) * t + (high - low) / 2.0 / wave * (1.0 - (wave * t).cos())
            }
        }
    }

    /// The time at which the integral is `area`.
    fn time_of(&self, area: f64) -> f64 {
        if let Form::Linear { from, to } = self.form {
            let slope = (to - from) / self.seconds;
            // The root of from * t + slope * t² / 2 = area, in the form that does not cancel for small slopes.
            let root = (from * from + 2.0 * slope * area).max(0.0).sqrt();
            let t = if from + root > 0.0 { 2.0 * area / (from + root) } else { 0.0 };
            return t.clamp(0.0, self.seconds);
        }
        let (mut low, mut high) = (0.0, self.seconds);
        // 60 halvings of an hour are below a femtosecond.
        for _ in 0..60 {
            let middle = f64::midpoint(low, high);
            if self.area(middle) < area {
                low = middle;
            } else {
                high = middle;
            }
        }
        high
    }
}

/// A rate (requests a second, or a factor on a trace) over time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Curve {
    /// With the time and the integral at each one's start.
    pieces: Vec<(f64, f64, Piece)>,
    seconds: f64,
    total: f64,
}

impl Curve {
    /// From its pieces, in order. Pieces without a duration are left out.
    pub(crate) fn new(pieces: impl IntoIterator<Item = Piece>) -> Self {
        let mut curve = Self { pieces: Vec::new(), seconds: 0.0, total: 0.0 };
        for piece in pieces.into_iter().filter(|piece| piece.seconds > 0.0) {
            curve.pieces.push((curve.seconds, curve.total, piece));
            curve.seconds += piece.seconds;
            curve.total += piece.area(piece.seconds);
        }
        curve
    }

    /// The same rate all the time.
    #[cfg(test)]
    pub(crate) fn hold(rate: f64, seconds: f64) -> Self {
        Self::new([Piece { seconds, form: Form::Linear { from: rate, to: rate } }])
    }

    /// How long it lasts.
    pub(crate) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// Its integral: how many requests.
    pub(crate) fn total(&self) -> f64 {
        self.total
    }

    /// The rate at a time; 0 outside.
    pub(crate) fn rate(&self, t: f64) -> f64 {
        let after = self.pieces.partition_point(|(start, ..)| *start <= t);
        match after.checked_sub(1).map(|at| &self.pieces[at]) {
            Some((start, _, piece)) if t - start <= piece.seconds => piece.rate(t - start).max(0.0),
            _ => 0.0,
        }
    }

    /// The highest rate, looked at a thousand times.
    pub(crate) fn peak(&self) -> f64 {
        (0..=1_000).map(|n| self.rate(self.seconds * f64::from(n) / 1_000.0)).fold(0.0, f64::max)
    }

    /// The time at which the integral reaches `area`; nothing at and beyond the total. `hint` is the piece to look at first
    /// and is moved along, so that a walk over all arrivals costs no search.
    pub(crate) fn time_of(&self, area: f64, hint: &mut usize) -> Option<f64> {
        if area >= self.total {
            return None;
        }
        while let Some((start, before, piece)) = self.pieces.get(*hint) {
            let end = self.pieces.get(*hint + 1).map_or(self.total, |(_, before, _)| *before);
            if area < end {
                return Some(start + piece.time_of((area - before).max(0.0)));
            }
            *hint += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_inverse(curve: &Curve) {
        let mut hint = 0;
        let mut last = 0.0;
        for k in 0..curve.total() as u64 {
            let t = curve.time_of(k as f64, &mut hint).expect("within");
            assert!(t >= last, "{t} before {last}");
            last = t;
            let area: f64 =
                curve.pieces.iter().map(|(start, _, piece)| piece.area((t - start).clamp(0.0, piece.seconds))).sum();
            assert!((area - k as f64).abs() < 1e-6 * curve.total(), "arrival {k} at {t}: integral {area}");
        }
    }

    #[test]
    fn arrivals_are_where_the_integral_says() {
        let linear = |from, to, seconds| Piece { seconds, form: Form::Linear { from, to } };
        check_inverse(&Curve::hold(100.0, 30.0));
        check_inverse(&Curve::new([linear(0.0, 200.0, 10.0), linear(200.0, 0.0, 10.0), linear(5.0, 5.0, 2.0)]));
        check_inverse(&Curve::new([
            linear(50.0, 50.0, 1.0),
            Piece { seconds: 12.0, form: Form::Sine { low: 0.0, high: 100.0, period: 5.0 } },
            linear(0.0, 0.0, 3.0),
            linear(1.0, 80.0, 4.0),
        ]));
    }

    #[test]
    fn a_ramp_has_the_area_of_its_triangle() {
        let ramp = Curve::new([Piece { seconds: 10.0, form: Form::Linear { from: 0.0, to: 100.0 } }]);
        assert!((ramp.total() - 500.0).abs() < 1e-9);
        assert!((ramp.rate(5.0) - 50.0).abs() < 1e-9);
        assert_eq!(ramp.rate(10.5), 0.0);
    }
}
