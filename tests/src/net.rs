//! A network of its own for a cluster: each node in a network namespace, all joined by a bridge, and the program that plays
//! clients and upstream on the bridge itself.
//!
//! A program that wants one calls [`Net::enter`] first, which runs it again in namespaces for network, mounts and processes.
//! They end with it, and all that it made in them: nothing is left behind, whatever becomes of it.
//!
//! A link is cut by a permanent neighbour entry with an address that nobody has: packets leave and never arrive, without a
//! word to either side, in one direction. It needs no packet filter.

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
};

/// Set for a program that runs in its own namespaces.
const INSIDE: &str = "TESTS_INSIDE_NET";
/// Where clients and the upstream are.
const HUB: &str = "10.77.0.254";
/// Nobody has it; locally administered.
const NOBODY: &str = "02:00:00:00:00:fe";

/// The network.
#[derive(Debug)]
pub struct Net {
    nodes: usize,
}

impl Net {
    /// Why this machine has no such networks; none when it does.
    pub fn missing() -> Option<String> {
        let script = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && ip link add probe type bridge \
            && ip netns add probe && ip link add v type veth peer name w netns probe && ip netns exec probe true";
        let output = unshare().args(["sh", "-c", script]).stdin(Stdio::null()).output();
        match output {
            Ok(output) if output.status.success() => None,
            Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Some(format!("run unshare: {error}")),
        }
        .map(|why| format!("needs network namespaces, bridges and veth links (iproute2, util-linux): {why}"))
    }

    /// Runs this program again, with its arguments, where it may have networks; there it goes on (none).
    ///
    /// # Errors
    /// This machine does not permit it.
    pub fn enter() -> Result<Option<ExitCode>, String> {
        if std::env::var_os(INSIDE).is_some() {
            return Ok(None);
        }
        if let Some(why) = Self::missing() {
            return Err(why);
        }
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        // The first process of a namespace ignores Ctrl-C: that is the shell, and the program is its child.
        let mut command = unshare();
        command.args(["sh", "-c", "\"$0\" \"$@\"; exit $?"]).arg(program).args(std::env::args_os().skip(1));
        // Built while there is a network to fetch from.
        command.env(INSIDE, "1").env("GATEWAY_BINARY", crate::binary());
        let status = command.status().map_err(|error| error.to_string())?;
        Ok(Some(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from)))
    }

    /// Makes the network, for so many nodes.
    ///
    /// # Panics
    /// When the program has not [entered](Net::enter) its namespaces.
    pub fn new(nodes: usize) -> Self {
        assert!(std::env::var_os(INSIDE).is_some(), "only in namespaces of one's own");
        run("mkdir", &["-p", "/run/netns"]);
        run("mount", &["-t", "tmpfs", "none", "/run/netns"]);
        run("ip", &["link", "set", "lo", "up"]);
        run("ip", &["link", "add", "hub", "type", "bridge"]);
        run("ip", &["addr", "add", &format!("{HUB}/24"), "dev", "hub"]);
        run("ip", &["link", "set", "hub", "up"]);
        for node in 0..nodes {
            let (name, link, addr) = (name(node), format!("link{node}"), format!("{}/24", Self::addr(node)));
            run("ip", &["netns", "add", &name]);
            run("ip", &["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &name]);
            run("ip", &["link", "set", &link, "master", "hub", "up"]);
            run("ip", &["-n", &name, "addr", "add", &addr, "dev", "eth0"]);
            run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
            run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        }
        Self { nodes }
    }

    /// Where the program itself listens.
    pub fn hub(&self) -> &'static str {
        HUB
    }

    /// A node's address.
    pub fn addr(node: usize) -> String {
        format!("10.77.0.{}", node + 1)
    }

    /// What is put before a node's command so that it runs in its namespace.
    pub fn wrapper(node: usize) -> Vec<String> {
        ["ip", "netns", "exec", &name(node)].map(str::to_owned).to_vec()
    }

    /// From now on nothing that `from` sends reaches `to` (`true`), or all (`false`).
    pub fn cut(&self, from: usize, to: usize, cut: bool) {
        let (name, to) = (name(from), Self::addr(to));
        let change = if cut { vec!["replace", &to, "lladdr", NOBODY] } else { vec!["del", &to] };
        let mut words = vec!["-n", &name, "neigh"];
        words.extend(change);
        words.extend(["dev", "eth0"]);
        if cut {
            words.extend(["nud", "permanent"]);
            run("ip", &words);
        } else {
            // None may be there.
            let _ = Command::new("ip").args(words).stderr(Stdio::null()).status();
        }
    }

    /// Cuts a node off from all others (`true`), or not: what it sends, what it is sent.
    pub fn cut_off(&self, node: usize, sends: bool, receives: bool, cut: bool) {
        for other in (0..self.nodes).filter(|other| *other != node) {
            if sends {
                self.cut(node, other, cut);
            }
            if receives {
                self.cut(other, node, cut);
            }
        }
    }

    /// All links work.
    pub fn heal(&self) {
        for node in 0..self.nodes {
            self.cut_off(node, true, false, false);
        }
    }
}

/// A disk in memory whose size can change; it ends with the namespaces.
#[derive(Debug)]
pub struct SmallDisk {
    path: String,
}

impl SmallDisk {
    /// Mounts an empty one on a directory, which is made.
    ///
    /// # Panics
    /// When it cannot be mounted.
    pub fn mount(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).expect("make the mount point");
        let disk = Self { path: dir.display().to_string() };
        run("mount", &["-t", "tmpfs", "none", &disk.path]);
        disk.free();
        disk
    }

    /// There is no room for another page.
    pub fn fill(&self) {
        let output = Command::new("df").args(["--output=used", "-k", &self.path]).output().expect("run df");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let used_kb = text.lines().last().and_then(|line| line.trim().parse::<u64>().ok()).expect("a number");
        // It grows meanwhile, and a disk smaller than its files is refused.
        for slack_kb in [0, 1_024, 8_192, 65_536] {
            let option = format!("remount,size={}k", used_kb + slack_kb);
            let tried = Command::new("mount").args(["-o", &option, &self.path]).stderr(Stdio::null()).status();
            if tried.is_ok_and(|status| status.success()) {
                return;
            }
        }
        panic!("{} cannot be made full", self.path);
    }

    /// There is room.
    pub fn free(&self) {
        run("mount", &["-o", "remount,size=4g", &self.path]);
    }
}

fn name(node: usize) -> String {
    format!("node-{}", node + 1)
}

fn unshare() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--map-root-user"]);
    command
}

#[track_caller]
fn run(program: &str, words: &[&str]) {
    let output = Command::new(program).args(words).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("run {program}: {error}"));
    assert!(output.status.success(), "{program} {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
