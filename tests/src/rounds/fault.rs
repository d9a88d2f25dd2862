//! What goes wrong in a round.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{
    Random, World, wal,
    world::{NODES, SMALL},
};

/// A class of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "their names say it")]
pub enum Kind {
    CutLeader,
    CutFollower,
    MuteLeader,
    DeafLeader,
    MuteFollower,
    DeafFollower,
    Flapping,
    KillLeader,
    KillFollower,
    KillAll,
    Sleep,
    DiskFull,
    FlushFails,
    TornTail,
}

impl Kind {
    /// All that this machine can do.
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::CutLeader,
            Self::CutFollower,
            Self::MuteLeader,
            Self::DeafLeader,
            Self::MuteFollower,
            Self::DeafFollower,
            Self::Flapping,
            Self::KillLeader,
            Self::KillFollower,
            Self::KillAll,
            Self::Sleep,
            Self::DiskFull,
            Self::TornTail,
        ];
        if can_trace() {
            all.push(Self::FlushFails);
        } else {
            eprintln!("without failed flushes: needs strace, and the permission to trace a process");
        }
        all
    }

    /// What a reader calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::CutLeader => "leader cut off",
            Self::CutFollower => "follower cut off",
            Self::MuteLeader => "leader sends nothing",
            Self::DeafLeader => "leader hears nothing",
            Self::MuteFollower => "follower sends nothing",
            Self::DeafFollower => "follower hears nothing",
            Self::Flapping => "links come and go",
            Self::KillLeader => "leader killed",
            Self::KillFollower => "follower killed",
            Self::KillAll => "all killed",
            Self::Sleep => "node asleep (SIGSTOP)",
            Self::DiskFull => "disk full",
            Self::FlushFails => "flush fails",
            Self::TornTail => "killed, the log's tail torn",
        }
    }

    fn of_leader(self, random: &mut Random) -> bool {
        match self {
            Self::CutLeader | Self::MuteLeader | Self::DeafLeader | Self::KillLeader => true,
            Self::CutFollower | Self::MuteFollower | Self::DeafFollower | Self::KillFollower => false,
            _ => random.coin(),
        }
    }
}

/// A fault under way.
#[derive(Debug)]
pub struct Fault {
    /// Its class.
    pub kind: Kind,
    /// The node it has befallen; none for all.
    pub victim: Option<usize>,
    /// When it began.
    pub began: Instant,
    tracer: Option<Child>,
}

impl Fault {
    /// Begins.
    pub fn begin(kind: Kind, world: &mut World, random: &mut Random) -> Self {
        let leader = kind.of_leader(random);
        let mut victim = world.victim(leader, random);
        if kind == Kind::DiskFull {
            victim = SMALL;
            if leader {
                lead_on(world, victim);
            }
        }
        let mut fault = Self { kind, victim: Some(victim), began: Instant::now(), tracer: None };
        match kind {
            Kind::CutLeader | Kind::CutFollower => world.net.cut_off(victim, true, true, true),
            Kind::MuteLeader | Kind::MuteFollower => world.net.cut_off(victim, true, false, true),
            Kind::DeafLeader | Kind::DeafFollower => world.net.cut_off(victim, false, true, true),
            Kind::Flapping => {}
            Kind::KillLeader | Kind::KillFollower => world.cluster.nodes[victim].kill(),
            Kind::TornTail => {
                world.cluster.nodes[victim].kill();
                let torn = wal::tear(&world.cluster.nodes[victim].data_dir, random.below(100));
                torn.unwrap_or_else(|error| panic!("tear the log of node {}: {error}", victim + 1));
            }
            Kind::KillAll => {
                fault.victim = None;
                world.cluster.nodes.iter_mut().for_each(crate::Node::kill);
            }
            Kind::Sleep => world.cluster.nodes[victim].signal(libc::SIGSTOP),
            Kind::DiskFull => world.disk.fill(),
            Kind::FlushFails => fault.tracer = Some(fail_flushes(world.cluster.nodes[victim].pid())),
        }
        fault
    }

    /// Lasts as long as said.
    pub fn last(&mut self, world: &World, long: Duration, random: &mut Random) {
        let until = Instant::now() + long;
        let Some(victim) = self.victim.filter(|_| self.kind == Kind::Flapping) else {
            return std::thread::sleep(long);
        };
        let mut cut = false;
        while Instant::now() < until {
            cut = !cut;
            let (sends, receives) = random.of(&[(true, true), (true, false), (false, true)]);
            if cut {
                world.net.cut_off(victim, sends, receives, true);
            } else {
                world.net.heal();
            }
            std::thread::sleep(random.millis(50..700));
        }
    }

    /// Ends: all nodes serve again.
    ///
    /// # Errors
    /// A node has gone on where it had to stop.
    pub fn end(mut self, world: &mut World) -> Result<(), String> {
        let mut broken = Ok(());
        if let (Kind::Sleep, Some(victim)) = (self.kind, self.victim) {
            world.cluster.nodes[victim].signal(libc::SIGCONT);
        }
        if let (Some(mut tracer), Some(victim)) = (self.tracer.take(), self.victim) {
            let node = &mut world.cluster.nodes[victim];
            let start = Instant::now();
            while node.is_running() && start.elapsed() < crate::PATIENCE {
                std::thread::sleep(Duration::from_millis(10));
            }
            if node.is_running() {
                broken = Err(format!("{} goes on after its flushes failed", node.name));
                node.kill();
            }
            let _ = tracer.kill();
            let _ = tracer.wait();
        }
        world.heal();
        broken
    }

    /// Nodes that it has not befallen.
    pub fn others(&self) -> Vec<usize> {
        (0..NODES).filter(|node| self.victim.is_some_and(|victim| victim != *node)).collect()
    }
}

/// Moves the ledger's leadership to a node, if it lets itself be moved.
fn lead_on(world: &World, node: usize) {
    let to = serde_json::json!({ "group": 1, "to": world.cluster.nodes[node].name });
    let _ = world.cluster.nodes[node].admin().try_call("POST", "/v1/cluster/transfer-leader", Some(&to));
}

const FAIL: [&str; 7] =
    ["-qq", "-o", "/dev/null", "-e", "trace=fdatasync,fsync", "-e", "inject=fdatasync,fsync:error=EIO"];

/// From now on every flush of a process fails with EIO.
fn fail_flushes(pid: u32) -> Child {
    let mut command = Command::new("strace");
    command.args(["-f", "-p", &pid.to_string()]).args(FAIL).stdin(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("it was tried before")
}

fn can_trace() -> bool {
    let Ok(mut child) = Command::new("sleep").arg("5").spawn() else { return false };
    let mut command = Command::new("timeout");
    command.args(["--preserve-status", "-s", "INT", "0.5", "strace", "-p", &child.id().to_string()]).args(FAIL);
    let output = command.stdin(Stdio::null()).output();
    let _ = child.kill();
    let _ = child.wait();
    // Interrupted because it went on, not because it was refused.
    output.is_ok_and(|output| {
        !String::from_utf8_lossy(&output.stderr).contains("attach") && output.status.code() != Some(127)
    })
}
