//! The demo's nodes as processes of their own, and a control listener that kills and starts them: so that a load test can
//! take a node away as a crash does.
//!
//! `kill` is SIGKILL, `stop` is SIGTERM (the node drains), `start` runs the same command again on the same directory.
//! ```text
//! GET  /nodes                     names, addresses, whether each runs
//! POST /nodes/{name}/kill|stop|start
//! ```
//! The listener is on loopback and asks for no token: what it can do, any process of this user can do with `kill`.

use std::{
    net::{SocketAddr, TcpListener},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use axum::{
    Json, Router,
    extract::{Path as UrlPath, State},
    http::StatusCode,
    routing::{get, post},
};
use serde_json::{Value, json};
use store::model::Secret;

use super::guide::Addresses;
use crate::{config::Settings, error::NOT_CONTROLLED};

/// Longest time until all nodes are ready.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether they are.
const POLL: Duration = Duration::from_millis(100);
/// How long a node may drain at the end before it is killed.
const DRAIN_WITHIN: Duration = Duration::from_secs(8);

/// A node and its process, if it runs.
#[derive(Debug)]
struct Process {
    addresses: Addresses,
    settings: Settings,
    token: Secret,
    verbose: bool,
    child: Option<Child>,
}

/// All of them; killed when dropped.
#[derive(Debug, Clone)]
pub(super) struct Processes(Arc<Mutex<Vec<Process>>>);

impl Processes {
    /// Starts all nodes and waits until they are ready.
    pub(super) async fn start(settings: Vec<Settings>, token: &Secret, verbose: bool) -> anyhow::Result<Self> {
        let processes = settings.into_iter().map(|settings| {
            let addresses = Addresses {
                name: settings.node_name.clone(),
                data: settings.data_addr.to_string(),
                admin: settings.admin_addr.to_string(),
                peer: settings.peer_addr.to_string(),
            };
            Process { addresses, settings, token: token.clone(), verbose, child: None }
        });
        let nodes = Self(Arc::new(Mutex::new(processes.collect())));
        for process in nodes.lock().iter_mut() {
            process.start()?;
        }
        let waiting = nodes.clone();
        tokio::task::spawn_blocking(move || waiting.ready()).await??;
        Ok(nodes)
    }

    /// Where they are.
    pub(super) fn addresses(&self) -> Vec<Addresses> {
        self.lock().iter().map(|process| process.addresses.clone()).collect()
    }

    /// Serves the control listener until the demo ends.
    pub(super) fn control(&self, listener: TcpListener) -> anyhow::Result<SocketAddr> {
        listener.set_nonblocking(true).context("set up the control listener")?;
        let addr = listener.local_addr().context("read the control listener's address")?;
        let listener = tokio::net::TcpListener::from_std(listener).context("set up the control listener")?;
        let router =
            Router::new().route("/nodes", get(list)).route("/nodes/{name}/{verb}", post(act)).with_state(self.clone());
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "serve the control listener");
            }
        });
        Ok(addr)
    }

    /// Lets all of them drain, and kills what has not ended then. Blocks.
    pub(super) fn stop(&self) {
        let mut processes = self.lock();
        for process in processes.iter() {
            let _ = process.signal(rustix::process::Signal::TERM);
        }
        let start = Instant::now();
        for process in processes.iter_mut() {
            while process.is_running() && start.elapsed() < DRAIN_WITHIN {
                std::thread::sleep(POLL);
            }
            process.kill();
        }
    }

    /// Waits until every node says that it serves.
    fn ready(&self) -> anyhow::Result<()> {
        let start = Instant::now();
        let config = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(2))).proxy(None);
        let agent = config.build().new_agent();
        loop {
            let mut waiting = Vec::new();
            for process in self.lock().iter_mut() {
                if !process.is_running() {
                    bail!("{} ended while it was starting; its messages are above", process.addresses.name);
                }
                if agent.get(format!("http://{}/readyz", process.addresses.admin)).call().is_err() {
                    waiting.push(process.addresses.name.clone());
                }
            }
            if waiting.is_empty() {
                return Ok(());
            }
            if start.elapsed() > READY_WITHIN {
                bail!("{} not ready after {} s", waiting.join(", "), READY_WITHIN.as_secs());
            }
            std::thread::sleep(POLL);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Process>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    fn start(&mut self) -> anyhow::Result<()> {
        let settings = &self.settings;
        let own = std::env::current_exe().context("find this program's own file")?;
        let mut command = Command::new(own);
        command.arg("serve").arg("--data-dir").arg(&settings.data_dir).args(["--node-name", &settings.node_name]);
        command.args(["--data-addr", &self.addresses.data, "--admin-addr", &self.addresses.admin]);
        command.args(["--peer-addr", &self.addresses.peer, "--compat-headers", &settings.compat_headers.to_string()]);
        command.args(["--voters", &settings.voters.to_string(), "--workers", &settings.workers.to_string()]);
        // A node that was killed on purpose is no news for those that are left.
        command.args(["--log-level", if self.verbose { "info" } else { "error,openraft=error" }]);
        if !settings.join.0.is_empty() {
            command.args(["--join", &settings.join.to_string()]);
        }
        // Ctrl-C goes to the whole group of a terminal; the demo ends its nodes itself.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.env("TOLLGATE_ADMIN_TOKEN", self.token.expose()).stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().with_context(|| format!("start {}", self.addresses.name))?);
        Ok(())
    }

    fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn signal(&self, signal: rustix::process::Signal) -> Option<()> {
        let child = self.child.as_ref()?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        rustix::process::kill_process(pid, signal).ok()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn list(State(nodes): State<Processes>) -> Json<Value> {
    let mut processes = nodes.lock();
    let views = processes.iter_mut().map(|process| {
        let runs = process.is_running();
        let Addresses { name, data, admin, peer } = &process.addresses;
        json!({ "name": name, "data_addr": data, "admin_addr": admin, "peer_addr": peer, "runs": runs })
    });
    Json(json!({ "data": views.collect::<Vec<_>>() }))
}

async fn act(
    State(nodes): State<Processes>,
    UrlPath((name, verb)): UrlPath<(String, String)>,
) -> (StatusCode, Json<Value>) {
    let mut processes = nodes.lock();
    let known: Vec<String> = processes.iter().map(|process| process.addresses.name.clone()).collect();
    let refused = |detail: String| (NOT_CONTROLLED, Json(json!({ "detail": detail })));
    let Some(process) = processes.iter_mut().find(|process| process.addresses.name == name) else {
        return refused(format!("there is no node {name:?}; there are {}", known.join(", ")));
    };
    match verb.as_str() {
        "kill" => process.kill(),
        "stop" => {
            let _ = process.signal(rustix::process::Signal::TERM);
        }
        "start" if process.is_running() => {}
        "start" => {
            if let Err(error) = process.start() {
                return refused(format!("{error:#}"));
            }
        }
        _ => return refused(format!("{verb:?} is not known; expected kill, stop or start")),
    }
    eprintln!("{name}: {verb}");
    (StatusCode::OK, Json(json!({ "name": name, "runs": process.is_running() })))
}
