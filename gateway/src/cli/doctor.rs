//! `tollgate doctor`: what a node needs of its machine, and how the cluster is.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use clap::Args;
use serde_json::{Value, json};
use store::model::Timestamp;

use super::{
    client::Client,
    failure::{Failure, Result},
    output,
    remote::Remote,
};

/// Writes that are timed.
const FLUSHES: usize = 50;
/// What a log record of a quiet node takes about.
const FLUSHED_BYTES: usize = 4_096;
/// Beyond it a commit deadline of 2 s is at risk under load.
const SLOW_FLUSH: Duration = Duration::from_millis(50);
const POOR_FLUSH: Duration = Duration::from_millis(10);
/// Descriptors that the default bound on connections asks for, both sides, and the files.
const WANTED_FILES: u64 = 40_000;
const LEAST_FILES: u64 = 4_096;
const LEAST_FREE_BYTES: u64 = 1 << 30;
const WANTED_FREE_BYTES: u64 = 10 << 30;
/// Nodes' clocks: rows carry them, and quota periods are read on them.
const SKEWED: Duration = Duration::from_secs(2);
/// A certificate that ends sooner should have been replaced already (authorities renew after two thirds of 90 days).
const WANTED_VALID_S: i64 = 21 * 86_400;
const LEAST_VALID_S: i64 = 3 * 86_400;
/// Entries that a follower may be behind.
const LAGGING: u64 = 10_000;

/// `doctor`
#[derive(Debug, Args)]
#[command(after_help = "Exit code 1 when something is unhealthy.
Examples:
  tollgate doctor
  tollgate doctor --data-dir /var/lib/tollgate
  tollgate doctor --data-dir /var/lib/tollgate --local -o json")]
pub(crate) struct Arguments {
    /// The node's data directory on this machine: looks at its disk
    #[arg(long, value_name = "DIRECTORY", env = "TOLLGATE_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Asks no node
    #[arg(long)]
    local: bool,
    #[command(flatten)]
    remote: Remote,
}

/// How one thing is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Finding {
    check: String,
    health: Health,
    detail: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Health {
    Ok,
    Warning,
    Unhealthy,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut findings =
            vec![version(), file_limit(rustix::process::getrlimit(rustix::process::Resource::Nofile).current)];
        if let Some(dir) = &self.data_dir {
            findings.push(space(dir));
            findings.push(flushes(dir));
        }
        if !self.local {
            match self.remote.client() {
                Ok(client) => ask(&client, &self.remote, &mut findings),
                Err(failure) => findings.push(Finding::new("node", Health::Unhealthy, failure.to_string())),
            }
        }
        let items: Vec<Value> = findings.iter().map(Finding::value).collect();
        let whole = json!({ "healthy": findings.iter().all(|one| one.health < Health::Unhealthy), "checks": items });
        let columns = [("check", "/check"), ("health", "/health"), ("detail", "/detail")];
        self.remote.output.print(&whole, || output::rows(&items, &columns))?;
        match findings.iter().filter(|one| one.health == Health::Unhealthy).count() {
            0 => Ok(()),
            many => Err(Failure::Failed(format!("{many} of {} checks are unhealthy", findings.len()))),
        }
    }
}

impl Finding {
    fn new(check: impl Into<String>, health: Health, detail: impl Into<String>) -> Self {
        Self { check: check.into(), health, detail: detail.into() }
    }

    fn value(&self) -> Value {
        let health = match self.health {
            Health::Ok => "ok",
            Health::Warning => "warning",
            Health::Unhealthy => "unhealthy",
        };
        json!({ "check": self.check, "health": health, "detail": self.detail })
    }
}

fn version() -> Finding {
    Finding::new("version", Health::Ok, concat!("this is tollgate ", env!("CARGO_PKG_VERSION")))
}

fn file_limit(limit: Option<u64>) -> Finding {
    let (health, detail) = match limit {
        None => (Health::Ok, "no limit on open files".to_owned()),
        Some(limit) if limit < LEAST_FILES => (
            Health::Unhealthy,
            format!("{limit} open files: connections will be refused; raise it (ulimit -n, LimitNOFILE=)"),
        ),
        Some(limit) if limit < WANTED_FILES => (
            Health::Warning,
            format!("{limit} open files; {WANTED_FILES} are enough for max_connections as it is by default"),
        ),
        Some(limit) => (Health::Ok, format!("{limit} open files")),
    };
    Finding::new("file-limit", health, detail)
}

fn space(dir: &Path) -> Finding {
    let stat = match rustix::fs::statvfs(dir) {
        Ok(stat) => stat,
        Err(error) => return Finding::new("disk-space", Health::Unhealthy, format!("{}: {error}", dir.display())),
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let health = match free {
        free if free < LEAST_FREE_BYTES => Health::Unhealthy,
        free if free < WANTED_FREE_BYTES => Health::Warning,
        _ => Health::Ok,
    };
    let read_only = stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY);
    if read_only {
        return Finding::new("disk-space", Health::Unhealthy, format!("{} is mounted read-only", dir.display()));
    }
    Finding::new(
        "disk-space",
        health,
        format!("{:.1} GiB free for {}", free as f64 / (1u64 << 30) as f64, dir.display()),
    )
}

/// The time of a small write that is flushed, as the log does it: what every answer waits for.
fn flushes(dir: &Path) -> Finding {
    let path = dir.join(format!(".doctor-{}", std::process::id()));
    let timed = time_flushes(&path);
    // Whatever happened, nothing is left behind.
    let _ = std::fs::remove_file(&path);
    match timed {
        Err(error) => Finding::new("flush", Health::Unhealthy, format!("write in {}: {error}", dir.display())),
        Ok(times) => judge_flushes(times),
    }
}

fn time_flushes(path: &Path) -> std::io::Result<Vec<Duration>> {
    let mut file: File = OpenOptions::new().create_new(true).write(true).open(path)?;
    // In place, as the log's recycled segments are: no file grows while it is timed.
    file.write_all(&vec![0; FLUSHED_BYTES * FLUSHES])?;
    file.sync_all()?;
    let block = [0x5a; FLUSHED_BYTES];
    (0..FLUSHES)
        .map(|n| {
            let started = Instant::now();
            file.write_all_at(&block, (n * FLUSHED_BYTES) as u64)?;
            file.sync_data()?;
            Ok(started.elapsed())
        })
        .collect()
}

fn judge_flushes(mut times: Vec<Duration>) -> Finding {
    times.sort_unstable();
    let at = |part: usize| times[(times.len() * part / 100).min(times.len() - 1)];
    let (median, most) = (at(50), at(98));
    let health = match median {
        median if median >= SLOW_FLUSH => Health::Unhealthy,
        median if median >= POOR_FLUSH => Health::Warning,
        _ => Health::Ok,
    };
    let ms = |time: Duration| time.as_secs_f64() * 1_000.0;
    Finding::new("flush", health, format!("fdatasync of 4 KiB: median {:.2} ms, p98 {:.2} ms", ms(median), ms(most)))
}

/// What the cluster says of itself, and each node of itself.
fn ask(client: &Client, remote: &Remote, findings: &mut Vec<Finding>) {
    let status = match client.read("/v1/cluster?consistency=stale") {
        Ok(answer) => answer.body,
        Err(failure) => return findings.push(Finding::new("node", Health::Unhealthy, failure.to_string())),
    };
    findings.extend(groups(&status));
    // All nodes' admin listeners speak TLS, or none.
    let scheme = client.scheme();
    let mut certificates = Vec::new();
    for node in status["nodes"].as_array().into_iter().flatten() {
        let name = node["name"].as_str().unwrap_or("-");
        let answer = node["admin_addr"].as_str().and_then(|addr| remote.client_of(&format!("{scheme}://{addr}")).ok());
        let check = format!("node {name}");
        let told = match answer.map(|client| (client.read("/v1/cluster?consistency=stale"), SystemTime::now())) {
            Some((Ok(answer), now)) => {
                certificates.extend(judge_certificates(name, &answer.body, now));
                judge_node(&answer.body, answer.date, now)
            }
            Some((Err(failure), _)) => (Health::Unhealthy, failure.to_string()),
            None => (Health::Unhealthy, "it has no admin address".to_owned()),
        };
        findings.push(Finding::new(check, told.0, told.1));
    }
    if certificates.is_empty() {
        certificates.push(Finding::new("certificates", Health::Ok, "none: no listener has TLS"));
    }
    findings.extend(certificates);
}

/// How long a node's certificates are still good for.
fn judge_certificates(node: &str, status: &Value, now: SystemTime) -> Vec<Finding> {
    let now = Timestamp::from_unix_seconds(
        now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs().cast_signed()),
    );
    let judge = |certificate: &Value| {
        let (place, name) = (certificate["listener"].as_str()?, certificate["names"][0].as_str().unwrap_or("-"));
        let not_after: Timestamp = certificate["not_after"].as_str()?.parse().ok()?;
        let left = not_after.unix_seconds() - now.unix_seconds();
        let days = left / 86_400;
        let (health, detail) = match left {
            ..=0 => (Health::Unhealthy, format!("{name}: expired at {not_after}; others refuse it")),
            left if left < LEAST_VALID_S => (Health::Unhealthy, format!("{name}: {days} days left, until {not_after}")),
            left if left < WANTED_VALID_S => (Health::Warning, format!("{name}: {days} days left, until {not_after}")),
            _ => (Health::Ok, format!("{name}: {days} days left")),
        };
        Some(Finding::new(format!("certificate {node} {place}"), health, detail))
    };
    status["certificates"].as_array().into_iter().flatten().filter_map(judge).collect()
}

fn groups(status: &Value) -> Vec<Finding> {
    let group = |group: &Value| {
        let kind = group["kind"].as_str().unwrap_or("-");
        let (leader, lag) = (group["leader"].as_str(), &group["lag"]);
        let behind = lag.as_object().into_iter().flatten().filter_map(|(node, lag)| Some((node, lag.as_u64()?)));
        let worst = behind.max_by_key(|(_, lag)| *lag).filter(|(_, lag)| *lag > LAGGING);
        let (health, detail) = match (leader, worst) {
            (None, _) => (Health::Unhealthy, "it has no leader: nothing can be written".to_owned()),
            (Some(leader), Some((node, lag))) => {
                (Health::Warning, format!("{leader} leads; {node} is {lag} entries behind"))
            }
            (Some(leader), None) => (Health::Ok, format!("{leader} leads, term {}", group["term"])),
        };
        Finding::new(format!("group {kind}"), health, detail)
    };
    status["groups"].as_array().into_iter().flatten().map(group).collect()
}

fn judge_node(status: &Value, date: Option<SystemTime>, now: SystemTime) -> (Health, String) {
    let version = status["version"].as_str().unwrap_or("unknown");
    if status["ready"] != true {
        return (Health::Unhealthy, format!("not ready: {}", status["reason"].as_str().unwrap_or("-")));
    }
    let skew = date.map(|date| date.duration_since(now).or_else(|_| now.duration_since(date)).unwrap_or_default());
    // Its clock is told to the second.
    match skew {
        Some(skew) if skew > SKEWED + Duration::from_secs(1) => {
            (Health::Unhealthy, format!("ready, version {version}; its clock is {} s from this one", skew.as_secs()))
        }
        _ if version != env!("CARGO_PKG_VERSION") => {
            (Health::Warning, format!("ready, version {version}, which is not this one's"))
        }
        _ => (Health::Ok, format!("ready, version {version}, clocks agree")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_can_be_written_is_timed_and_left_as_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let finding = flushes(dir.path());
        assert!(finding.detail.contains("median") && finding.check == "flush", "{finding:?}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("a list").count(), 0);
        assert_eq!(space(dir.path()).check, "disk-space");
        for gone in [flushes(Path::new("/nowhere")), space(Path::new("/nowhere"))] {
            assert_eq!(gone.health, Health::Unhealthy);
        }
    }

    #[test]
    fn slow_disks_few_files_and_lost_leaders_are_told() {
        let ms = |ms: u64| vec![Duration::from_millis(ms); 20];
        let health = [1, 15, 80].map(|time| judge_flushes(ms(time)).health);
        assert_eq!(health, [Health::Ok, Health::Warning, Health::Unhealthy]);
        let health = [Some(1_024), Some(8_192), Some(1 << 20), None].map(|limit| file_limit(limit).health);
        assert_eq!(health, [Health::Unhealthy, Health::Warning, Health::Ok, Health::Ok]);
        let status = json!({ "groups": [
            { "kind": "meta", "leader": null, "lag": null },
            { "kind": "ledger", "leader": "a", "term": 3, "lag": { "b": 0, "c": 20_000 } },
        ] });
        let health: Vec<Health> = groups(&status).into_iter().map(|finding| finding.health).collect();
        assert_eq!(health, [Health::Unhealthy, Health::Warning]);
    }

    #[test]
    fn certificates_that_end_soon_or_have_ended_are_told() {
        let now = SystemTime::now();
        let seconds = now.duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs().cast_signed();
        let certificate = |days: i64| {
            let not_after = Timestamp::from_unix_seconds(seconds + days * 86_400 + 60);
            json!({ "listener": "data", "names": ["api.test"], "not_after": not_after })
        };
        let status = json!({ "certificates": [certificate(60), certificate(10), certificate(1), certificate(-2)] });
        let found = judge_certificates("a", &status, now);
        let health: Vec<Health> = found.iter().map(|finding| finding.health).collect();
        assert_eq!(health, [Health::Ok, Health::Warning, Health::Unhealthy, Health::Unhealthy]);
        assert!(found[1].detail.starts_with("api.test: 10 days left"), "{found:?}");
        assert!(found[3].detail.contains("expired"), "{found:?}");
    }

    #[test]
    fn clocks_and_versions_are_compared() {
        let now = SystemTime::now();
        let status = |ready: bool, version: &str| json!({ "ready": ready, "version": version, "reason": "waiting" });
        let mine = env!("CARGO_PKG_VERSION");
        assert_eq!(judge_node(&status(true, mine), Some(now), now).0, Health::Ok);
        assert_eq!(judge_node(&status(true, mine), Some(now + Duration::from_secs(9)), now).0, Health::Unhealthy);
        assert_eq!(judge_node(&status(true, "0.0.1"), Some(now), now).0, Health::Warning);
        assert_eq!(judge_node(&status(false, mine), None, now), (Health::Unhealthy, "not ready: waiting".to_owned()));
    }
}
