//! Shapes with a name: what load testers ask for, with the clients' behaviour that belongs to it.

/// A named shape. Levels are factors of `--rate`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Preset {
    /// Its name on the command line.
    pub(crate) name: &'static str,
    /// What it stands for.
    pub(crate) what: &'static str,
    /// The shape.
    pub(crate) shape: &'static str,
    /// How the clients behave, in the form of `--behaviour`.
    pub(crate) behaviour: &'static str,
    /// Their retry profile, in the form of `--retry`.
    pub(crate) retry: &'static str,
}

/// All of them.
pub(crate) const PRESETS: &[Preset] = &[
    Preset {
        name: "black-friday",
        what: "a morning that climbs, the doors open at 10x, a long plateau with waves, a slow end",
        shape: "hold 1x 30s; ramp 3x 60s; spike 10x 45s rise 3s fall 12s; sine 5x..8x 30s 90s; ramp 1x 60s; hold 1x 15s",
        behaviour: "keep-alive=85,new-connection=10,slow-reader=3,hang-up=2",
        retry: "honour-retry-after",
    },
    Preset {
        name: "thundering-herd",
        what: "an outage ends and everybody comes back at once, on new connections",
        shape: "hold 1x 20s; hold 0 10s; spike 20x 5s fall 2s; ramp 20x..1x 20s; hold 1x 30s",
        behaviour: "keep-alive=20,new-connection=80",
        retry: "none",
    },
    Preset {
        name: "quota-reset-midnight",
        what: "quotas are used up, most clients wait, and at the reset all of them begin again",
        shape: "ramp 1x..0.1x 40s; hold 0.1x 20s; step 8x 20s; ramp 2x 30s; hold 1x 30s",
        behaviour: "keep-alive=90,new-connection=10",
        retry: "honour-retry-after",
    },
    Preset {
        name: "scan-burst",
        what: "batch jobs of scan SDKs: short trains of requests, sleeping a second after each 429",
        shape: "hold 1x 15s; step 12x 3s; hold 0.5x 12s; step 12x 3s; hold 0.5x 12s; step 12x 3s; hold 1x 15s",
        behaviour: "keep-alive=100",
        retry: "sdk",
    },
];

impl Preset {
    /// By its name.
    pub(crate) fn of(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::{Unit, parse};

    #[test]
    fn every_preset_is_a_shape_on_a_rate_and_on_a_trace() {
        for preset in PRESETS {
            for unit in [Unit::Requests(Some(100.0)), Unit::Factor] {
                let curve = parse(preset.shape, unit).unwrap_or_else(|error| panic!("{}: {error}", preset.name));
                assert!(curve.total() > 0.0 && curve.seconds() > 60.0, "{}", preset.name);
            }
        }
    }
}
