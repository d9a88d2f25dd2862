//! Nodes as processes.

use std::{
    ffi::OsStr,
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{Admin, program::binary, until};

/// The admin token that every test cluster is made with.
const TOKEN_FILE: &str = "admin-token";

/// What every program may want of its environment: where programs are, where files may be, how much a panic says.
const INHERITED: [&str; 4] = ["PATH", "HOME", "TMPDIR", "RUST_BACKTRACE"];

/// A command that gets nothing of this process's environment but `INHERITED`. A node refuses a `TOLLGATE_*` variable that it
/// does not know and obeys one that it does; neither is for whoever has exported one where the tests are run.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}

/// An address on loopback that was free a moment ago and is handed out once. Below the ports that systems choose for clients,
/// so that no connection takes it while its node is down; each test process begins elsewhere.
///
/// # Panics
/// When all are taken.
pub fn free_addr() -> String {
    const FIRST: u32 = 10_000;
    const COUNT: u32 = 22_000;
    static HANDED_OUT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..COUNT {
        let n = HANDED_OUT.fetch_add(1, Ordering::Relaxed);
        let addr = format!("127.0.0.1:{}", FIRST + (std::process::id().wrapping_mul(101).wrapping_add(n)) % COUNT);
        if TcpListener::bind(&addr).is_ok() {
            return addr;
        }
    }
    panic!("no port is free");
}

/// How to start nodes.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// More flags of `serve`.
    pub args: Vec<String>,
    /// More environment.
    pub env: Vec<(String, String)>,
    /// Put before the command, like `strace …`.
    pub wrapper: Vec<String>,
    /// Where the nodes' data is; below the cluster's own directory when not given.
    pub data_dir: Option<PathBuf>,
    /// Another build than [`binary`].
    pub binary: Option<PathBuf>,
}

impl Options {
    fn binary(&self) -> PathBuf {
        self.binary.clone().unwrap_or_else(binary)
    }
}

/// A node and its process, if it runs.
#[derive(Debug)]
pub struct Node {
    /// `node-1`, `node-2`, …
    pub name: String,
    /// Where API clients connect.
    pub data_addr: String,
    /// Where operators connect.
    pub admin_addr: String,
    /// Where peers connect.
    pub peer_addr: String,
    /// Its data directory.
    pub data_dir: PathBuf,
    /// Its log lines, of all starts.
    pub log: PathBuf,
    token_file: PathBuf,
    join: Vec<String>,
    options: Options,
    process: Option<Child>,
}

impl Node {
    /// The command that starts it.
    pub fn command(&self) -> Command {
        let mut words = self.options.wrapper.clone();
        words.push(self.options.binary().display().to_string());
        let mut command = command(&words[0]);
        command.args(&words[1..]).arg("serve");
        command.arg("--data-dir").arg(&self.data_dir).arg("--node-name").arg(&self.name);
        command.args(["--data-addr", &self.data_addr, "--admin-addr", &self.admin_addr]);
        command.args(["--peer-addr", &self.peer_addr]).arg("--admin-token-file").arg(&self.token_file);
        if !self.join.is_empty() {
            command.arg("--join").arg(self.join.join(","));
        }
        command.args(&self.options.args).envs(self.options.env.iter().cloned());
        command.stdin(Stdio::null());
        command
    }

    /// Starts it, with the same command each time.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let log = File::options().create(true).append(true).open(&self.log).expect("open the node's log file");
        let stdout = log.try_clone().expect("a second handle to the log file");
        let started = self.command().stdout(stdout).stderr(log).spawn();
        self.process = Some(started.unwrap_or_else(|error| panic!("start {:?}: {error}", self.command())));
    }

    /// Other options from the next start on.
    pub fn set_options(&mut self, options: Options) {
        self.options = options;
    }

    /// Moves its listeners to another address, their ports kept; peers that listed it must be told ([`Node::join`]).
    pub fn move_to(&mut self, ip: &str) {
        for addr in [&mut self.data_addr, &mut self.admin_addr, &mut self.peer_addr] {
            let port = addr.rsplit(':').next().expect("an address has a port");
            *addr = format!("{ip}:{port}");
        }
    }

    /// These peers in `--join`, its own among them, from the next start on.
    pub fn join(&mut self, peers: &[String]) {
        self.join = peers.to_vec();
    }

    /// Other peers in `--join`, beside its own, from the next start on.
    pub fn rejoin(&mut self, peers: &[&str]) {
        self.join = peers.iter().map(|peer| (*peer).to_owned()).chain([self.peer_addr.clone()]).collect();
    }

    /// The process id (of the wrapper, where there is one).
    pub fn pid(&self) -> u32 {
        self.process.as_ref().expect("the node runs").id()
    }

    /// Whether its process is there.
    pub fn is_running(&mut self) -> bool {
        self.process.as_mut().is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // A wrapper's child outlives it: end the node itself first.
            if !self.options.wrapper.is_empty() {
                for pid in children(process.id()) {
                    signal(pid, libc::SIGKILL);
                }
            }
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Sends a signal to the node's own process.
    pub fn signal(&self, number: i32) {
        let pid = self.pid();
        let own = if self.options.wrapper.is_empty() { pid } else { *children(pid).first().unwrap_or(&pid) };
        signal(own, number);
    }

    /// SIGTERM, and waits for the exit status.
    pub fn stop(&mut self) -> ExitStatus {
        self.signal(libc::SIGTERM);
        self.wait()
    }

    /// Waits until the process has ended.
    pub fn wait(&mut self) -> ExitStatus {
        let status = until("the node's end", || self.process.as_mut()?.try_wait().ok()?);
        self.process = None;
        status
    }

    /// Runs a command of the command line against this node's admin API: its exit code, what it has printed and said.
    pub fn run(&self, words: &[&str]) -> (Option<i32>, String, String) {
        let mut command = command(self.options.binary());
        command.args(words).args(["--admin-url", &format!("http://{}", self.admin_addr)]);
        let output = command.arg("--admin-token-file").arg(&self.token_file).output().expect("run tollgate");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    }

    /// Why `/readyz` says that it does not serve; empty when it does, or is not there.
    pub fn reason(&self) -> String {
        let url = format!("http://{}/readyz", self.admin_addr);
        let Ok(mut answer) = crate::client().get(&url).call() else { return String::new() };
        let body = answer.body_mut().read_to_string().unwrap_or_default();
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        body["reason"].as_str().unwrap_or_default().to_owned()
    }

    /// The admin API of this node.
    pub fn admin(&self) -> Admin {
        let token = fs::read_to_string(&self.token_file).expect("read the admin token");
        Admin::new(&self.admin_addr, token.trim())
    }

    /// Whether `/readyz` says 200.
    pub fn is_ready(&self) -> bool {
        let url = format!("http://{}/readyz", self.admin_addr);
        crate::client().get(&url).call().is_ok_and(|answer| answer.status() == 200)
    }

    /// What `/readyz` says; nothing when it cannot be asked.
    pub fn readiness(&self) -> String {
        let url = format!("http://{}/readyz", self.admin_addr);
        let asked = crate::client().get(&url).call();
        asked.ok().and_then(|mut answer| answer.body_mut().read_to_string().ok()).unwrap_or_default()
    }

    /// Waits until it serves.
    ///
    /// # Panics
    /// When it does not in time, with its last log lines.
    pub fn wait_ready(&mut self) {
        let start = std::time::Instant::now();
        while !self.is_ready() {
            let running = self.is_running();
            if !running || start.elapsed() > crate::PATIENCE {
                panic!("{} is not ready (running: {running}); its log ends with\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }

    /// `http://host:port` of the data plane.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.data_addr)
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// Resident memory in bytes.
    pub fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process is there");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS");
        line.split_whitespace().nth(1).and_then(|kb| kb.parse::<u64>().ok()).expect("a number") * 1024
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- log of {} ---\n{}", self.name, self.log_tail());
        }
    }
}

fn signal(pid: u32, number: i32) {
    let _ = Command::new("kill").arg(format!("-{number}")).arg(pid.to_string()).status();
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

/// Some nodes and the directory that they share.
#[derive(Debug)]
pub struct Cluster {
    /// The nodes, in the order of `--join`.
    pub nodes: Vec<Node>,
    dir: tempfile::TempDir,
}

impl Cluster {
    /// Nodes that are described and not started.
    pub fn new(count: usize, options: &Options) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let token_file = dir.path().join(TOKEN_FILE);
        let made = command(options.binary()).args(["token", "generate"]).output().expect("run tollgate token generate");
        assert!(made.status.success(), "tollgate token generate: {}", String::from_utf8_lossy(&made.stderr));
        fs::write(&token_file, &made.stdout).expect("write the admin token");
        let peers: Vec<String> = (0..count).map(|_| free_addr()).collect();
        let join = if count > 1 { peers.clone() } else { Vec::new() };
        let nodes = peers
            .iter()
            .enumerate()
            .map(|(n, peer_addr)| {
                let name = format!("node-{}", n + 1);
                let data = options.data_dir.clone().unwrap_or_else(|| dir.path().to_owned());
                Node {
                    data_addr: free_addr(),
                    admin_addr: free_addr(),
                    peer_addr: peer_addr.clone(),
                    data_dir: data.join(&name),
                    log: dir.path().join(format!("{name}.log")),
                    token_file: token_file.clone(),
                    join: join.clone(),
                    options: options.clone(),
                    process: None,
                    name,
                }
            })
            .collect();
        Self { nodes, dir }
    }

    /// Nodes that serve.
    pub fn start(count: usize) -> Self {
        let mut cluster = Self::new(count, &Options::default());
        cluster.start_all();
        cluster
    }

    /// Describes another node, which joins those that are there, and says its place.
    pub fn add(&mut self, options: &Options) -> usize {
        let name = format!("node-{}", self.nodes.len() + 1);
        let peer_addr = free_addr();
        let mut join: Vec<String> = self.nodes.iter().map(|node| node.peer_addr.clone()).collect();
        join.push(peer_addr.clone());
        self.nodes.push(Node {
            data_addr: free_addr(),
            admin_addr: free_addr(),
            peer_addr,
            data_dir: self.dir.path().join(&name),
            log: self.dir.path().join(format!("{name}.log")),
            token_file: self.dir.path().join(TOKEN_FILE),
            join,
            options: options.clone(),
            process: None,
            name,
        });
        self.nodes.len() - 1
    }

    /// Leaves the directory where it is, and says where.
    pub fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    /// Starts all and waits until they serve.
    pub fn start_all(&mut self) {
        for node in &mut self.nodes {
            node.start();
        }
        for node in &mut self.nodes {
            node.wait_ready();
        }
    }

    /// Its directory, for files of the test's own.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Names of the voters and of the learners, as a node sees them once it has all that was committed.
    pub fn members(&self, seen_by: usize) -> Option<(Vec<String>, Vec<String>)> {
        let nodes = self.nodes[seen_by].admin().try_get("/v1/cluster")?.body["nodes"].as_array()?.clone();
        let of = |role: &str| {
            let some = nodes.iter().filter(|node| node["role"] == role);
            let mut names: Vec<String> = some.filter_map(|node| Some(node["name"].as_str()?.to_owned())).collect();
            names.sort();
            names
        };
        Some((of("voter"), of("learner")))
    }

    /// Index of the node that leads a group (0 metadata, 1 ledger), as any node that serves sees it.
    pub fn leader(&self, group: usize) -> usize {
        until("a leader", || {
            self.nodes.iter().find_map(|node| {
                let answer = node.admin().try_get("/v1/cluster?consistency=stale")?;
                let name = answer.body["groups"][group]["leader"].as_str()?.to_owned();
                self.nodes.iter().position(|node| node.name == name)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_inherit_no_variable_of_the_tests() {
        // cargo sets some for every test.
        assert!(std::env::vars_os().any(|(name, _)| name.to_string_lossy().starts_with("CARGO_")));
        let output = command("env").output().expect("run env");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let passed = |name: &str| INHERITED.contains(&name);
        let others: Vec<&str> = text.lines().filter(|line| !line.split('=').next().is_some_and(passed)).collect();
        assert!(others.is_empty(), "{others:?}");
    }
}
