//! Starts that cannot succeed: each says what is wrong and what to do, exits with 1, and loses nothing.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Cluster, Load, Options, Upstream, binary, client, free_addr, get, until};

/// Runs a command that is to be refused: what it says, when it has exited with 1.
fn refused(command: &mut Command) -> String {
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run tollgate");
    let mut stderr = child.stderr.take().expect("piped");
    let text = std::thread::spawn(move || std::io::read_to_string(&mut stderr).expect("text"));
    let start = std::time::Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait") {
            break status;
        }
        if start.elapsed() > Duration::from_secs(20) {
            child.kill().expect("kill");
            panic!("it was to be refused and runs: {}", text.join().expect("read"));
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let text = text.join().expect("read");
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

/// Asserts that a message has all of `parts`.
fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in: {text}");
    }
}

fn serve(args: &[&str]) -> Command {
    let mut command = tests::command(binary());
    command.arg("serve").args(args).stdin(Stdio::null());
    command
}

/// A node that has answered a request and was stopped: the cluster, the key, the request's id.
fn used() -> (Upstream, Cluster, String, String) {
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(1);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let id = request(&cluster, &key);
    assert_eq!(cluster.nodes[0].stop().code(), Some(0));
    (upstream, cluster, key, id)
}

fn request(cluster: &Cluster, key: &str) -> String {
    let answer = get(&client(), &cluster.nodes[0].url("/"), key).expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.header("x-request-id").to_owned()
}

/// Starts it again: the row is there and requests are served.
fn works(cluster: &mut Cluster, key: &str, id: &str) {
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    cluster.nodes[0].admin().row(id);
    request(cluster, key);
}

/// Changes a file, starts the node, which is to be refused, and puts the file back.
fn refused_with(cluster: &Cluster, file: &Path, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let good = fs::read(file).expect("read");
    let mut bad = good.clone();
    change(&mut bad);
    fs::write(file, &bad).expect("write");
    let text = refused(&mut cluster.nodes[0].command());
    assert!(fs::read(file).expect("read") == bad, "{} was changed", file.display());
    fs::write(file, &good).expect("write");
    says(&text, &[file.to_str().expect("text")]);
    text
}

/// The frames of a log segment: offset and length of the records.
fn frames(segment: &[u8]) -> Vec<(usize, usize)> {
    let mut frames = Vec::new();
    let mut at = 4096;
    while segment[at..].starts_with(b"TGFR") {
        let length = u32::from_le_bytes(segment[at + 8..at + 12].try_into().expect("four bytes")) as usize;
        frames.push((at, length));
        at += (32 + length).next_multiple_of(8);
    }
    frames
}

#[test]
fn damaged_files_and_those_of_a_newer_version_are_refused_by_name() {
    let (_upstream, mut cluster, key, id) = used();
    let dir = cluster.nodes[0].data_dir.clone();
    let what_to_do = "empty one";

    let wal: PathBuf = until("the log's newest segment", || {
        let files = fs::read_dir(dir.join("wal")).ok()?.filter_map(Result::ok).map(|entry| entry.path());
        let is_segment = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.ends_with(".wal") && !name.starts_with("spare")
        };
        files.filter(is_segment).max()
    });
    let text = refused_with(&cluster, &wal, |bytes| {
        let frames = frames(bytes);
        let (at, length) = frames[frames.len() / 2];
        bytes[at + 32 + length / 2] ^= 1;
    });
    says(&text, &["damaged", "offset", "crc32c", "nothing was changed", what_to_do]);
    let text = refused_with(&cluster, &wal, |bytes| {
        bytes[8] = 2;
        let sum = crc32c::crc32c(&bytes[..40]);
        bytes[40..44].copy_from_slice(&sum.to_le_bytes());
    });
    says(&text, &["newer version", "log format 2", "start that version"]);

    // Without its log, a node would have forgotten its vote, and the rows that its state had not yet kept.
    let (log, away) = (dir.join("wal"), dir.join("away"));
    fs::rename(&log, &away).expect("rename");
    says(&refused(&mut cluster.nodes[0].command()), &["has no log", "from a backup", what_to_do]);
    fs::remove_dir_all(&log).ok();
    fs::rename(&away, &log).expect("rename");

    let identity = dir.join("node.json");
    let text =
        refused_with(&cluster, &identity, |bytes| *bytes = br#"{"format":2,"node_id":"1","incarnation":1}"#.to_vec());
    says(&text, &["newer version", "format 2", "upgrade"]);
    let text = refused_with(&cluster, &identity, |bytes| bytes.truncate(9));
    says(&text, &["damaged", "move the whole data directory aside"]);

    for group in ["0", "1"] {
        let state = dir.join("groups").join(group).join("state_1");
        let text = refused_with(&cluster, &state.join("FORMAT"), |bytes| {
            *bytes = format!("tollgate state, format 9\ngroup {group}\n").into_bytes();
        });
        says(&text, &["newer version", "format 9", "start the newer build"]);
        let redb = state.join("main.redb");
        says(&refused_with(&cluster, &redb, |bytes| bytes[..9].fill(b'x')), &["damaged", what_to_do]);
        says(&refused_with(&cluster, &redb, |bytes| bytes.truncate(100)), &["damaged", what_to_do]);
        says(&refused_with(&cluster, &redb, |bytes| bytes[4096..].fill(0x5a)), &["damaged", what_to_do]);
        // Versions of both of redb's commit slots.
        let text = refused_with(&cluster, &redb, |bytes| (bytes[64], bytes[192]) = (99, 99));
        says(&text, &["redb format 99", "if a newer version wrote it, start that one"]);
    }
    works(&mut cluster, &key, &id);
}

#[test]
fn two_processes_on_one_data_directory_are_refused() {
    let (_upstream, mut cluster, key, id) = used();
    works(&mut cluster, &key, &id);
    let dir = cluster.nodes[0].data_dir.to_str().expect("text");
    let free = "127.0.0.1:0";
    let text =
        refused(&mut serve(&["--data-dir", dir, "--data-addr", free, "--admin-addr", free, "--peer-addr", free]));
    says(&text, &[dir, "in use by another tollgate process", "--data-dir of its own"]);
    request(&cluster, &key);
}

#[test]
fn a_port_in_use_is_named_with_its_setting_before_anything_is_touched() {
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("data");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = listener.local_addr().expect("bound").to_string();
    for flag in ["--data-addr", "--admin-addr", "--peer-addr"] {
        let mut args = vec!["--data-dir", data.to_str().expect("text")];
        for other in ["--data-addr", "--admin-addr", "--peer-addr"] {
            args.extend([other, if other == flag { &taken } else { "127.0.0.1:0" }]);
        }
        says(&refused(&mut serve(&args)), &[&taken, "in use by another process", flag]);
        assert!(!data.exists(), "{flag}: nothing is made");
    }
}

#[test]
fn listeners_beyond_loopback_need_insecure() {
    for (key, flag) in [("admin_addr", "--admin-addr"), ("peer_addr", "--peer-addr")] {
        let dir = tempfile::tempdir().expect("a directory");
        let text = refused(&mut serve(&["--data-dir", dir.path().to_str().expect("text"), flag, "0.0.0.0:0"]));
        says(&text, &[key, "0.0.0.0:0", "127.0.0.1", "--insecure"]);
    }
}

#[test]
fn a_bad_settings_file_is_refused_with_its_place_and_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("tollgate.toml");
    let name = file.to_str().expect("text");
    for (text, place, parts) in [
        ("data_addr = \"127.0.0.1:0\"\nwhat = 3\n", ":2:1", ["what", "is not a setting"]),
        (
            "voters = 3\ncommit_deadline_ms = \"soon\"\n",
            ":2:22",
            ["commit_deadline_ms", "a whole number of milliseconds, like 2000"],
        ),
        ("data_addr = \n", ":1:13", ["data_addr", "an IP address and a port, like 127.0.0.1:8080"]),
    ] {
        fs::write(&file, text).expect("write");
        let said = refused(&mut serve(&["--config", name, "--data-dir", dir.path().join("d").to_str().expect("text")]));
        says(&said, &[&format!("{name}{place}")]);
        says(&said, &parts);
        assert!(!dir.path().join("d").exists());
    }
}

/// A small file system; unmounted when dropped.
struct Small(tempfile::TempDir);

impl Small {
    fn mount(options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        eprintln!("skipped: needs the permission to mount");
        None
    }

    fn remount(&self, options: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{options}")]).arg(self.0.path()).status();
        assert!(done.is_ok_and(|status| status.success()), "remount");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[test]
fn a_directory_that_is_read_only_is_refused() {
    let Some(small) = Small::mount("size=400m") else { return };
    let upstream = Upstream::start();
    let mut cluster = Cluster::new(1, &Options { data_dir: Some(small.0.path().to_owned()), ..Options::default() });
    small.remount("ro");
    says(
        &refused(&mut cluster.nodes[0].command()),
        &["Read-only file system", "--data-dir", "that this user can write"],
    );
    small.remount("rw");
    cluster.start_all();
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let id = request(&cluster, &key);
    cluster.nodes[0].stop();
    small.remount("ro");
    says(&refused(&mut cluster.nodes[0].command()), &["Read-only file system", "must be writable"]);
    small.remount("rw");
    works(&mut cluster, &key, &id);
    cluster.nodes[0].kill();
}

#[test]
fn a_full_disk_is_told_and_loses_nothing() {
    let Some(small) = Small::mount("size=8m") else { return };
    let upstream = Upstream::start();
    let mut cluster = Cluster::new(1, &Options { data_dir: Some(small.0.path().to_owned()), ..Options::default() });
    says(&refused(&mut cluster.nodes[0].command()), &["MiB of free space, a node needs 160 MiB", "--data-dir"]);
    small.remount("size=400m");
    cluster.start_all();
    let node = &mut cluster.nodes[0];
    let key = node.admin().open_account(&upstream.url);
    let load = Load::start(&[node.url("/")], &key, 8);
    load.wait_more(0, 200);
    // Another program's file takes what is left.
    let filler = small.0.path().join("filler");
    let full =
        std::io::copy(&mut std::io::repeat(1), &mut fs::File::create(&filler).expect("create")).expect_err("full");
    assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    let status = node.wait();
    let report = load.stop();
    assert_eq!(status.code(), Some(1), "{}", node.log_tail());
    says(&node.log_tail(), &["No space left on device", "start the node again with the same command"]);
    fs::remove_file(&filler).expect("remove");
    node.start();
    node.wait_ready();
    report.check(&node.admin().rows("account=acme")).unwrap();
    println!("full under load: {:?}, {} without", report.counts(), report.errors);
    node.kill();
}

/// What a node says on stderr, until it is killed.
struct Saying(std::process::Child, std::sync::Arc<std::sync::Mutex<String>>);

impl Saying {
    fn start(args: &[&str]) -> Self {
        let mut child = serve(args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("run tollgate");
        let stderr = child.stderr.take().expect("piped");
        let said = std::sync::Arc::<std::sync::Mutex<String>>::default();
        let to = said.clone();
        std::thread::spawn(move || {
            for line in std::io::BufRead::lines(std::io::BufReader::new(stderr)).map_while(Result::ok) {
                let mut said = to.lock().expect("no holder panics");
                said.push_str(&line);
                said.push('\n');
            }
        });
        Self(child, said)
    }

    fn text(&self) -> String {
        self.1.lock().expect("no holder panics").clone()
    }

    /// The first admin token, if it was shown.
    fn token(&self) -> Option<String> {
        self.text().lines().map(str::trim).find(|line| line.starts_with("tga_")).map(str::to_owned)
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Saying {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether a token is an administrator's at the node that listens there.
fn is_admin(admin_addr: &str, token: &str) -> bool {
    let bearer = format!("Bearer {token}");
    let asked = client().get(format!("http://{admin_addr}/v1/tokens")).header("authorization", &bearer).call();
    asked.is_ok_and(|answer| answer.status() == 200)
}

#[test]
fn a_first_start_that_is_killed_at_any_time_leaves_a_way_in() {
    let [data, admin, peer]: [String; 3] = std::array::from_fn(|_| free_addr());
    for pause_ms in [5, 20, 40, 60, 90, 120, 160, 200, 260, 350] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().display().to_string();
        let args = ["--data-dir", &path, "--data-addr", &data, "--admin-addr", &admin, "--peer-addr", &peer];
        let mut first = Saying::start(&args);
        std::thread::sleep(Duration::from_millis(pause_ms));
        first.kill();
        let again = Saying::start(&args);
        let works = || {
            let shown = [first.token(), again.token()];
            shown.into_iter().flatten().find(|token| is_admin(&admin, token))
        };
        until("a token that was shown works", works);
        let shown = [first.token(), again.token()].into_iter().flatten();
        assert_eq!(shown.filter(|token| is_admin(&admin, token)).count(), 1, "{pause_ms} ms");
    }
}

#[test]
fn a_cluster_whose_first_node_was_stopped_before_it_formed_shows_its_token() {
    let addrs: [[String; 3]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| free_addr()));
    let join = addrs.iter().map(|[_, _, peer]| peer.as_str()).collect::<Vec<_>>().join(",");
    let directory = tempfile::tempdir().expect("a directory");
    let start = |n: usize| {
        let [data, admin, peer] = &addrs[n];
        let path = directory.path().join(n.to_string()).display().to_string();
        let args =
            ["--data-dir", &path, "--data-addr", data, "--admin-addr", admin, "--peer-addr", peer, "--join", &join];
        Saying::start(&args)
    };
    let mut alone = start(0);
    until("it waits", || alone.text().contains("waiting for peers").then_some(()));
    alone.kill();
    let nodes = [start(0), start(1), start(2)];
    let token = until("one token", || nodes.iter().find_map(Saying::token));
    until("it works", || is_admin(&addrs[1][1], &token).then_some(()));
    assert_eq!(nodes.iter().filter_map(Saying::token).count(), 1);
}
