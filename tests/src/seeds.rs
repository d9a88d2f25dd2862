//! Seeds of the simulation, each played by a process of the program `simulate`, which reports in one line.
//!
//! `simulate` is built with the feature `simulation`; whoever runs it is not, so that no other program of a build has it.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use crate::program;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Nodes in the end.
    pub nodes: usize,
    /// The law that was broken first, and by what.
    pub violation: Option<(String, String)>,
    /// With a defect planted: whether it may break that law.
    pub expected: Option<bool>,
    /// Simulated time.
    pub simulated_ms: u64,
    /// Sum over all that happened: equal for equal runs.
    pub sum: u32,
    /// Faults (`fault: …`) and what clients met, by kind.
    pub counts: BTreeMap<String, u64>,
}

/// How seeds are played.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Manner {
    /// Simulated seconds of load and faults of a seed.
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Nothing goes wrong.
    #[arg(long)]
    pub calm: bool,
    /// Plants a defect, which must be found: its name as in `store::simulation::Defect`.
    #[arg(long)]
    pub defect: Option<String>,
}

impl Manner {
    /// As arguments of `simulate`.
    pub fn arguments(&self) -> Vec<String> {
        let mut all = Vec::new();
        if let Some(seconds) = self.seconds {
            all.push(format!("--seconds={seconds}"));
        }
        if self.calm {
            all.push("--calm".to_owned());
        }
        if let Some(defect) = &self.defect {
            all.push(format!("--defect={defect}"));
        }
        all
    }
}

/// The program, built now if need be.
///
/// # Errors
/// It cannot be built.
pub fn program() -> Result<PathBuf> {
    if !program::build("simulate", &["tests/simulation"]) {
        bail!("`simulate` cannot be built");
    }
    Ok(program::directory().join("simulate"))
}

/// Plays a seed.
///
/// # Errors
/// The process ended without a report.
pub fn play(program: &PathBuf, seed: u64, manner: &Manner) -> Result<Report> {
    let mut command = Command::new(program);
    command.arg(seed.to_string()).args(manner.arguments()).stdin(Stdio::null());
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().last().and_then(|line| serde_json::from_str(line).ok()) {
        Some(report) => Ok(report),
        None => bail!("{command:?} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)),
    }
}

/// The names of all defects that can be planted.
///
/// # Errors
/// The process says nothing.
pub fn defects(program: &PathBuf) -> Result<Vec<String>> {
    let output = Command::new(program).arg("--defects").output().context("run simulate")?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(ToOwned::to_owned).collect();
    if names.is_empty() {
        bail!("simulate knows no defects: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(names)
}
