//! The flush itself: a killed process keeps the page cache, so here disks are slow, fail, and lose their power.

use std::{
    process::{Command, Stdio},
    time::Duration,
};

use tests::{Cluster, Cut, Disk, Load, Options, Report, Upstream, client, get, until};

/// How long the kernel takes for a flush of a slow disk.
const SLOW: Duration = Duration::from_millis(200);

/// Options that start a node under `strace`, doing `inject` to each `fdatasync`; none, with a message, where that is not permitted.
fn injecting(inject: &str) -> Option<Options> {
    let inject = format!("inject=fdatasync:{inject}");
    let words = ["strace", "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null", "-e", "trace=fdatasync", "-e", &inject];
    let probe =
        Command::new(words[0]).args(&words[1..]).arg("true").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !probe.is_ok_and(|status| status.success()) {
        eprintln!("skipped: needs strace, and the permission to trace a process");
        return None;
    }
    Some(Options { wrapper: words.map(str::to_owned).to_vec(), ..Options::default() })
}

/// An empty disk; none, with a message, where it cannot be mounted.
fn disk() -> Option<Disk> {
    match Disk::mount() {
        Ok(disk) => Some(disk),
        Err(error) => {
            eprintln!("skipped: needs FUSE ({error})");
            None
        }
    }
}

/// What requests to each node take, one after another.
fn times(cluster: &Cluster, key: &str) -> Vec<Vec<Duration>> {
    let agent = client();
    let measure = |url: &str| {
        // The first may fetch units to spend.
        until("a first answer", || get(&agent, url, key).ok().filter(|answer| answer.status == 200));
        let mut times: Vec<Duration> = (0..11)
            .map(|_| {
                let start = std::time::Instant::now();
                let answer = get(&agent, url, key).expect("an answer");
                assert_eq!(answer.status, 200, "{}", answer.text);
                start.elapsed()
            })
            .collect();
        times.sort_unstable();
        times
    };
    cluster.nodes.iter().map(|node| measure(&node.url("/"))).collect()
}

fn restart_with(cluster: &mut Cluster, nodes: &[usize], options: &Options) {
    for node in nodes {
        cluster.nodes[*node].stop();
    }
    for node in nodes {
        cluster.nodes[*node].set_options(options.clone());
        cluster.nodes[*node].start();
    }
    for node in nodes {
        cluster.nodes[*node].wait_ready();
    }
}

#[test]
fn two_slow_disks_of_three_delay_every_answer_and_one_of_a_follower_none() {
    let Some(slow) = injecting(&format!("delay_exit={}", SLOW.as_micros())) else { return };
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);

    let leader = cluster.leader(1);
    let followers: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
    restart_with(&mut cluster, &followers[..1], &slow);
    assert_ne!(cluster.leader(1), followers[0], "a node that has just come back leads nothing");
    let one = times(&cluster, &key);
    println!("one slow follower: medians {:?}", one.iter().map(|times| times[5]).collect::<Vec<_>>());
    for (node, times) in one.iter().enumerate() {
        assert!(times[5] < Duration::from_millis(150), "node {node}: {times:?}");
    }

    restart_with(&mut cluster, &followers[1..], &slow);
    let two = times(&cluster, &key);
    println!("two slow disks: fastest {:?}", two.iter().map(|times| times[0]).collect::<Vec<_>>());
    for (node, times) in two.iter().enumerate() {
        assert!(times[0] >= SLOW, "node {node}: {times:?}");
    }
}

#[test]
fn a_disk_that_fails_stops_its_node_and_loses_nothing() {
    // Counted by thread: it is the log's thread that gets there.
    let Some(failing) = injecting("error=EIO:when=60+") else { return };
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(3);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let mut all = Report::default();
    for victim in 0..3 {
        restart_with(&mut cluster, &[victim], &failing);
        let leads = cluster.leader(1) == victim;
        let load = Load::start(&urls, &key, 2);
        until("the end of the node whose disk fails", || {
            // Not ready alone would not do: on a busy machine a node is out of contact at times.
            let node = &mut cluster.nodes[victim];
            (!node.is_running() || node.readiness().contains("Input/output error")).then_some(())
        });
        let failed = std::time::Instant::now();
        for other in (0..3).filter(|other| *other != victim) {
            load.wait_more(other, 50);
        }
        let report = load.stop();
        let late = |answer: &&tests::Received| answer.target == victim && answer.at - answer.took > failed;
        assert_eq!(
            report.received.iter().filter(late).find(|answer| answer.status != 503).map(|answer| answer.status),
            None
        );
        let (status, node) = (cluster.nodes[victim].wait(), &mut cluster.nodes[victim]);
        assert_eq!(status.code(), Some(1), "{}", node.log_tail());
        assert!(node.log_tail().contains("Input/output error"), "{}", node.log_tail());
        println!("{} (leads: {leads}): {:?}, {} without", cluster.nodes[victim].name, report.counts(), report.errors);
        all.add(report);
        cluster.nodes[victim].set_options(Options::default());
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_ready();
        for node in &cluster.nodes {
            all.check(&node.admin().rows("account=acme")).unwrap_or_else(|error| panic!("{}: {error}", node.name));
        }
    }
}

/// The leader's disk begins to fail while all three are under load: it stops serving, the others take over, and what its disk
/// had not taken is gone with a power cut, and nobody misses it.
#[test]
fn a_leader_whose_disk_fails_under_load_ends_and_the_others_take_over() {
    let mut disks = Vec::new();
    for _ in 0..3 {
        let Some(disk) = disk() else { return };
        disks.push(disk);
    }
    let upstream = Upstream::start();
    let mut cluster = Cluster::new(3, &Options::default());
    for (node, disk) in cluster.nodes.iter_mut().zip(&disks) {
        node.data_dir = disk.path().join("data");
    }
    cluster.start_all();
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let urls: Vec<String> = cluster.nodes.iter().map(|node| node.url("/")).collect();
    let mut all = Report::default();
    for round in 0..2 {
        let victim = cluster.leader(1);
        let load = Load::start(&urls, &key, 2);
        for target in 0..3 {
            load.wait_more(target, 50);
        }
        disks[victim].fail_sync(true);
        let failed = std::time::Instant::now();
        let status = cluster.nodes[victim].wait();
        let ended = failed.elapsed();
        assert_eq!(status.code(), Some(1), "{}", cluster.nodes[victim].log_tail());
        assert!(
            cluster.nodes[victim].log_tail().contains("Input/output error"),
            "{}",
            cluster.nodes[victim].log_tail()
        );
        for other in (0..3).filter(|other| *other != victim) {
            load.wait_more(other, 50);
        }
        let took_over = failed.elapsed();
        let report = load.stop();
        // A request that it began after its disk had failed has no other answer than 503.
        let late = |answer: &&tests::Received| answer.target == victim && answer.at - answer.took > failed;
        let other = report.received.iter().filter(late).find(|answer| answer.status != 503);
        assert_eq!(other.map(|answer| answer.status), None);
        println!(
            "round {round}: node {victim} ended after {ended:?}, the others had answered 50 more each after {took_over:?}; {:?}",
            report.counts()
        );
        all.add(report);
        disks[victim].fail_sync(false);
        disks[victim].cut(Cut::Nothing);
        cluster.nodes[victim].start();
        cluster.nodes[victim].wait_ready();
        for node in &cluster.nodes {
            all.check(&node.admin().rows("account=acme")).unwrap_or_else(|error| panic!("{}: {error}", node.name));
        }
    }
    for node in &mut cluster.nodes {
        node.kill();
    }
}

#[test]
fn an_only_node_whose_disk_fails_answers_nothing_that_is_not_in_its_log() {
    let Some(failing) = injecting("error=EIO:when=60+") else { return };
    let upstream = Upstream::start();
    let mut cluster = Cluster::start(1);
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    restart_with(&mut cluster, &[0], &failing);
    let node = &mut cluster.nodes[0];
    let load = Load::start(&[node.url("/")], &key, 8);
    let status = node.wait();
    let report = load.stop();
    println!("{:?}, {} without", report.counts(), report.errors);
    assert_eq!(status.code(), Some(1), "{}", node.log_tail());
    assert!(node.log_tail().contains("Input/output error"), "{}", node.log_tail());
    node.set_options(Options::default());
    node.start();
    node.wait_ready();
    report.check(&node.admin().rows("account=acme")).unwrap();
}

/// One node on a disk of its own whose power is cut under load; what its log says afterwards.
fn power_cut(disk: &mut Disk, cluster: &mut Cluster, url: &str, key: &str, answers: u64, keep: Cut) -> Report {
    let load = Load::start(&[url.to_owned()], key, 8);
    load.wait_more(0, answers);
    cluster.nodes[0].kill();
    let report = load.stop();
    disk.cut(keep);
    cluster.nodes[0].start();
    cluster.nodes[0].wait_ready();
    report
}

#[test]
fn a_disk_that_drops_what_was_not_synced_loses_no_answered_row() {
    let Some(mut disk) = disk() else { return };
    let upstream = Upstream::start();
    let options = Options { data_dir: Some(disk.path().to_owned()), ..Options::default() };
    let mut cluster = Cluster::new(1, &options);
    cluster.start_all();
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let url = cluster.nodes[0].url("/");
    let mut all = Report::default();
    for round in 0..8 {
        let keep = if round % 2 == 0 { Cut::Nothing } else { Cut::Some(round * 7919) };
        all.add(power_cut(&mut disk, &mut cluster, &url, &key, 50 + round * 41, keep));
        let rows = cluster.nodes[0].admin().rows("account=acme");
        all.check(&rows).unwrap_or_else(|error| panic!("round {round}, {keep:?}: {error}"));
    }
    println!("8 cuts, {:?}, {} syncs", all.counts(), disk.syncs());
    cluster.nodes[0].kill();
}

/// The control: the test above sees it when rows are not flushed.
#[test]
fn without_the_flush_a_power_cut_loses_answered_rows() {
    let Some(mut disk) = disk() else { return };
    let upstream = Upstream::start();
    let options = Options { data_dir: Some(disk.path().to_owned()), ..Options::default() };
    let mut cluster = Cluster::new(1, &options);
    cluster.start_all();
    let key = cluster.nodes[0].admin().open_account(&upstream.url);
    let url = cluster.nodes[0].url("/");
    disk.ignore_sync(true);
    let report = power_cut(&mut disk, &mut cluster, &url, &key, 100, Cut::Nothing);
    let error = report.check(&cluster.nodes[0].admin().rows("account=acme")).expect_err("rows are lost");
    assert!(error.contains("acknowledged rows lost"), "{error}");

    // The same with a disk that works and a process whose every fdatasync was taken out.
    disk.ignore_sync(false);
    if let Some(mut without) = injecting("retval=0") {
        without.data_dir = options.data_dir.clone();
        restart_with(&mut cluster, &[0], &without);
        let report = power_cut(&mut disk, &mut cluster, &url, &key, 100, Cut::Nothing);
        let error = report.check(&cluster.nodes[0].admin().rows("account=acme")).expect_err("rows are lost");
        assert!(error.contains("acknowledged rows lost"), "{error}");
    }
    cluster.nodes[0].kill();
}
