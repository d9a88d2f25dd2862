//! Does things to the service at set times: `kill leader @20s; start node-2 @40s`.
//!
//! ```text
//! kill|stop|start NODE @TIME    NODE is a name, `leader` (of the ledger), or `follower` (a node that is not)
//! exec COMMAND @TIME            a shell command; TOLLGATE_LEADER is in its environment
//! ```
//! How a node is reached: `--chaos-control URL` names something that takes `POST /nodes/{name}/{verb}`, as
//! `tollgate demo --nodes 3 --processes` offers it. There each node is a process of its own and `kill` is SIGKILL.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{admin::Admin, client::Control, exit::Usage, shape};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
enum Act {
    /// A verb and a node.
    Node(&'static str, String),
    /// A command.
    Exec(String),
}

/// A step at its time.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    at: f64,
    act: Act,
    /// As it was given.
    text: String,
}

/// Something was done.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// Seconds since the start.
    pub(crate) at: f64,
    /// Microseconds since 1970.
    pub(crate) at_us: i64,
    /// In words.
    pub(crate) what: String,
    /// Where clients reached the node, when one was killed.
    pub(crate) killed: Option<String>,
    /// It was not done; the words say why.
    pub(crate) failed: bool,
}

/// Longest time for one answer of what kills nodes.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How long the end of a run waits for the step that is being done.
const LAST_STEP: Duration = Duration::from_secs(60);
/// How often the thread looks whether it is to go on.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const VERBS: [&str; 3] = ["kill", "stop", "start"];

/// Reads the steps, in order of their times.
pub(crate) fn parse(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    for part in text.split(';').map(str::trim).filter(|part| !part.is_empty()) {
        let form = || {
            format!("{part:?}: expected one like \"kill leader @20s\", \"start node-2 @40s\" or \"exec ./x.sh @30s\"")
        };
        let (what, at) = part.rsplit_once('@').ok_or_else(form)?;
        let at = shape::duration(at.trim())?;
        let (verb, rest) = what.trim().split_once(' ').ok_or_else(form)?;
        let rest = rest.trim().to_owned();
        let act = match VERBS.iter().find(|known| **known == verb) {
            Some(verb) if !rest.is_empty() && !rest.contains(' ') => Act::Node(verb, rest),
            None if verb == "exec" && !rest.is_empty() => Act::Exec(rest),
            _ => return Err(form()),
        };
        steps.push(Step { at, act, text: part.to_owned() });
    }
    if steps.is_empty() {
        return Err("no step in it; expected one like \"kill leader @20s\"".to_owned());
    }
    steps.sort_by(|a, b| a.at.total_cmp(&b.at));
    Ok(steps)
}

/// Where nodes can be reached.
#[derive(Debug)]
pub(crate) struct Hands {
    /// Something that kills and starts nodes.
    pub(crate) control: Option<String>,
    /// The cluster's admin API, to find the leader.
    pub(crate) admin: Option<Arc<Admin>>,
}

impl Hands {
    /// Whether all steps can be done with them, in a run of so many seconds (where that is known).
    ///
    /// # Errors
    /// What is missing.
    pub(crate) fn check(&self, steps: &[Step], seconds: Option<f64>) -> Result<(), String> {
        for step in steps {
            if let Some(seconds) = seconds.filter(|seconds| step.at >= *seconds) {
                return Err(format!("{:?}: the run ends after {seconds} s, before this is due", step.text));
            }
            if let Act::Node(..) = step.act
                && self.control.is_none()
            {
                return Err(format!("{:?}: nothing to reach nodes with; give --chaos-control URL", step.text));
            }
            if step.asks_for_roles() && self.admin.is_none() {
                return Err(format!("{:?}: who that is is asked of the admin API; give --admin", step.text));
            }
        }
        Ok(())
    }
}

impl Hands {
    /// Whether what kills nodes answers, and has the nodes that are named. One that has no list of them is believed.
    ///
    /// # Errors
    /// It does not answer; or a name is not on its list, which is the caller's mistake.
    pub(crate) fn look(&self, steps: &[Step]) -> Result<()> {
        let named: Vec<(&Step, &str)> = steps.iter().filter_map(|step| Some((step, step.node()?))).collect();
        let (Some(control), false) = (self.control.as_deref(), named.is_empty()) else { return Ok(()) };
        let url = format!("{}/nodes", control.trim_end_matches('/'));
        let answer = agent().get(&url).call();
        let mut answer =
            answer.with_context(|| format!("--chaos-control does not answer, so nothing was sent: GET {url}"))?;
        let known = answer.body_mut().read_json::<Value>().unwrap_or_default();
        let Some(known) = known["data"].as_array() else { return Ok(()) };
        let known: Vec<&str> = known.iter().filter_map(|node| node["name"].as_str()).collect();
        let is_known = |step: &Step, name: &str| step.asks_for_roles() || known.contains(&name);
        if let Some((step, name)) = named.into_iter().find(|(step, name)| !is_known(step, name)) {
            let all = known.join(", ");
            let what =
                format!("--chaos {:?}: there is no node {name:?}; there are {all}, leader and follower", step.text);
            return Err(Usage::error(what));
        }
        Ok(())
    }
}

/// For what kills nodes: an answer is one whatever its status.
fn agent() -> ureq::Agent {
    let settings = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None);
    settings.http_status_as_error(false).build().new_agent()
}

impl Step {
    /// The node that is meant, by its name or what it is.
    fn node(&self) -> Option<&str> {
        match &self.act {
            Act::Node(_, who) => Some(who),
            Act::Exec(_) => None,
        }
    }

    /// Whether the admin API must say which node is meant.
    pub(crate) fn asks_for_roles(&self) -> bool {
        matches!(&self.act, Act::Node(_, who) if matches!(who.as_str(), "leader" | "follower"))
    }
}

/// Steps that are being done.
pub(crate) struct Chaos {
    done: mpsc::Receiver<Done>,
    over: Arc<AtomicBool>,
    /// Returns the steps that it did not come to.
    thread: JoinHandle<Vec<Step>>,
}

/// Runs the steps on a thread of their own.
pub(crate) fn start(steps: Vec<Step>, hands: Hands, control: Arc<Control>) -> Chaos {
    let (sender, done) = mpsc::channel();
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let thread = std::thread::spawn(move || {
        let mut steps = steps.into_iter();
        while let Some(step) = steps.next() {
            let due = Duration::from_secs_f64(step.at);
            // The schedule's clock, which stands still in a pause.
            while let Some(wait) = control.at(due).checked_duration_since(Instant::now()) {
                if control.is_draining() || is_over.load(Ordering::Relaxed) {
                    return std::iter::once(step).chain(steps).collect();
                }
                std::thread::sleep(wait.min(LOOK_EVERY));
            }
            let (now, at) = (Instant::now(), control.elapsed().as_secs_f64());
            let (what, killed, failed) = match act(&step.act, &hands) {
                Ok((what, killed)) => (what, killed, false),
                Err(error) => (format!("chaos failed: {}: {error:#}", step.text), None, true),
            };
            if sender.send(Done { at, at_us: control.unix_us(now), what, killed, failed }).is_err() {
                break;
            }
        }
        steps.collect()
    });
    Chaos { done, over, thread }
}

impl Chaos {
    /// What was done since the last look.
    pub(crate) fn done(&self) -> impl Iterator<Item = Done> {
        self.done.try_iter()
    }

    /// Ends it: steps that are due before `until` are still done, and what has begun is waited for. Returns what was done
    /// since the last look, and why something was not.
    pub(crate) fn finish(self, until: Instant) -> (Vec<Done>, Vec<String>) {
        while !self.thread.is_finished() && Instant::now() < until {
            std::thread::sleep(LOOK_EVERY);
        }
        self.over.store(true, Ordering::Relaxed);
        let ended = Instant::now();
        while !self.thread.is_finished() && ended.elapsed() < LAST_STEP {
            std::thread::sleep(LOOK_EVERY);
        }
        let mut failures = Vec::new();
        if self.thread.is_finished() {
            let left = self.thread.join().unwrap_or_default();
            failures.extend(left.iter().map(|step| format!("chaos not done: the run ended before {:?}", step.text)));
        } else {
            failures.push(format!("chaos not done: a step still went on {} s after the run", LAST_STEP.as_secs()));
        }
        (self.done.try_iter().collect(), failures)
    }
}

fn act(act: &Act, hands: &Hands) -> Result<(String, Option<String>)> {
    match act {
        Act::Exec(command) => {
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(command);
            if let Some(admin) = &hands.admin
                && let Ok(cluster) = admin.cluster()
            {
                shell.env("TOLLGATE_LEADER", leader(&cluster).unwrap_or_default());
            }
            let status = shell.status().with_context(|| format!("run {command:?}"))?;
            ensure!(status.success(), "{command:?}: {status}");
            Ok((format!("ran {command}"), None))
        }
        Act::Node(verb, who) => {
            let control = hands.control.as_deref().context("nothing to reach nodes with: give --chaos-control URL")?;
            let cluster = hands.admin.as_ref().map(|admin| admin.cluster()).transpose()?;
            let name = match (who.as_str(), &cluster) {
                ("leader", Some(cluster)) => leader(cluster)?,
                ("follower", Some(cluster)) => {
                    let leader = leader(cluster)?;
                    let names = nodes(cluster).filter_map(|node| node["name"].as_str());
                    names.map(str::to_owned).find(|name| *name != leader).context("no node besides the leader")?
                }
                ("leader" | "follower", None) => bail!("who is {who} is asked of the admin API: give --admin"),
                (name, _) => name.to_owned(),
            };
            let url = format!("{}/nodes/{name}/{verb}", control.trim_end_matches('/'));
            let status = agent().post(&url).send_empty().with_context(|| format!("POST {url}"))?.status();
            ensure!(status.is_success(), "POST {url}: {status}");
            let data_addr = cluster.as_ref().and_then(|cluster| {
                let node = nodes(cluster).find(|node| node["name"] == name.as_str())?;
                node["data_addr"].as_str().map(str::to_owned)
            });
            let role = if *who == name { name } else { format!("{who} ({name})") };
            let killed = if *verb == "kill" { Some(data_addr.unwrap_or_default()) } else { None };
            Ok((format!("{verb} {role}"), killed))
        }
    }
}

fn nodes(cluster: &Value) -> impl Iterator<Item = &Value> {
    cluster["nodes"].as_array().into_iter().flatten()
}

/// The ledger's leader, by name.
fn leader(cluster: &Value) -> Result<String> {
    let groups = cluster["groups"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ledger = groups.iter().find(|group| group["kind"] == "ledger").or_else(|| groups.first());
    let leader = ledger.map(|group| &group["leader"]).context("the cluster shows no groups")?;
    if let Some(name) = leader.as_str() {
        // Some versions show ids; a name is what nodes are told apart by.
        let by_id = nodes(cluster).find(|node| node["id"] == name).and_then(|node| node["name"].as_str());
        return Ok(by_id.unwrap_or(name).to_owned());
    }
    let by_id = nodes(cluster).find(|node| !leader.is_null() && node["id"] == *leader);
    by_id.and_then(|node| node["name"].as_str()).map(str::to_owned).context("the ledger has no leader right now")
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn steps_are_read_in_the_order_of_their_times() {
        let steps = parse("start node-2 @40s; kill leader @20s; exec ./cut.sh a b @30s").expect("steps");
        let acts: Vec<_> = steps.into_iter().map(|step| (step.at, step.act)).collect();
        assert_eq!(
            acts,
            [
                (20.0, Act::Node("kill", "leader".into())),
                (30.0, Act::Exec("./cut.sh a b".into())),
                (40.0, Act::Node("start", "node-2".into())),
            ]
        );
        for wrong in ["", " ; ", "kill leader", "kil leader @3s", "kill @3s", "kill a b @3s", "kill leader @soon"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_cannot_be_done_is_told_before_the_run() {
        let check = |text: &str, control: Option<&str>, seconds: Option<f64>| {
            let hands = Hands { control: control.map(str::to_owned), admin: None };
            hands.check(&parse(text).expect("steps"), seconds)
        };
        let url = Some("http://127.0.0.1:1");
        assert!(check("kill node-1 @3s", None, None).expect_err("no control").contains("--chaos-control"));
        assert!(check("kill leader @3s", url, None).expect_err("no admin").contains("--admin"));
        assert!(check("exec true @3s", None, Some(3.0)).expect_err("too late").contains("ends after 3 s"));
        assert_eq!(check("exec true @3s; kill node-1 @1s", url, Some(3.1)), Ok(()));
    }

    #[test]
    fn a_node_that_is_not_there_and_a_control_that_is_not_are_told_before_the_run() {
        let answering = |answers: &'static [(&'static str, &'static str)]| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
            let url = format!("http://{}", listener.local_addr().expect("an address"));
            std::thread::spawn(move || {
                for (status, body) in answers {
                    let (mut stream, _) = listener.accept().expect("a caller");
                    let mut head = [0; 1024];
                    let read = stream.read(&mut head).expect("a request");
                    assert!(head[..read].starts_with(b"GET /nodes HTTP/1.1"));
                    let length = body.len();
                    write!(stream, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
                        .expect("an answer");
                }
            });
            url
        };
        let look = |url: &str, text: &str| {
            let hands = Hands { control: Some(url.to_owned()), admin: None };
            hands.look(&parse(text).expect("steps")).map_err(|error| (error.is::<Usage>(), format!("{error:#}")))
        };
        const LIST: (&str, &str) = ("200 OK", r#"{"data":[{"name":"node-1"},{"name":"node-2"}]}"#);
        let url = answering(&[LIST, LIST, ("404 Not Found", "")]);
        assert_eq!(look(&url, "kill node-1 @1s; start leader @2s; exec true @3s"), Ok(()));
        let (is_usage, what) = look(&url, "kill node-1 @1s; start node-7 @2s").expect_err("no such node");
        assert!(is_usage && what.contains("\"node-7\"; there are node-1, node-2,"), "{what}");
        // It has no list: what it does with a name is its own affair.
        assert_eq!(look(&url, "kill node-7 @1s"), Ok(()));
        // Nobody listens on it, and no test of this moment can be given it.
        let closed = "127.0.0.1:1";
        let closed = format!("http://{closed}");
        assert!(look(&closed, "kill leader @1s").expect_err("none there").1.contains("nothing was sent"));
        assert_eq!(look(&closed, "exec true @1s"), Ok(()));
    }

    #[test]
    fn what_failed_and_what_was_not_come_to_is_told() {
        let run = |text: &str, seconds: u64| {
            let control = Arc::new(Control::new(Instant::now()));
            let hands = Hands { control: None, admin: None };
            let until = control.at(Duration::from_secs(seconds));
            start(parse(text).expect("steps"), hands, control).finish(until)
        };
        let (done, failures) = run("exec exit 3 @0s; exec true @0s; exec true @3600s", 0);
        // What is due is done, however soon the run is over; the third never is.
        assert!(done.len() == 2 && failures.len() == 1 && failures[0].contains("@3600s"), "{done:?} {failures:?}");
        let (done, failures) = run("exec exit 3 @0s; exec true @1s", 2);
        let failed: Vec<bool> = done.iter().map(|done| done.failed).collect();
        assert_eq!((failed, failures), (vec![true, false], vec![]));
        assert!(done[0].what.contains("exit 3"), "{}", done[0].what);
    }

    #[test]
    fn the_ledgers_leader_is_found_by_name_or_id() {
        let cluster = |leader: Value| {
            serde_json::json!({
                "nodes": [{ "id": "1f", "name": "node-1" }, { "id": "2f", "name": "node-2" }],
                "groups": [{ "kind": "meta", "leader": "node-1" }, { "kind": "ledger", "leader": leader }],
            })
        };
        assert_eq!(leader(&cluster("node-2".into())).expect("by name"), "node-2");
        assert_eq!(leader(&cluster("2f".into())).expect("by id"), "node-2");
        assert!(leader(&cluster(Value::Null)).is_err());
    }
}
