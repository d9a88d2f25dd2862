//! What does a request through one Tollgate node cost beside nginx: CPU, requests a second, p50 and p99?
//!
//! Both do the same job in the same run, in turn (A B A B …): key, rate limit that is never hit, a log line or row a request,
//! a keep-alive proxy to the same instant upstream. nginx does it with a map of the authorization header, `limit_req` and an
//! access log that nobody flushes; Tollgate's row is on disk (fdatasync) before the answer. Each gateway is pinned to core 0
//! with one worker; wrk and the upstream (nginx, `return 200`) have core 1. Back of the envelope: the kernel's share is 10 to
//! 13 us a request for either, nginx adds 5, hyper 8, the row 1 to 2, so 1.0 to 1.3 times nginx.
//!
//! CPU is user and system time of all processes of the side (`/proc/PID/stat`) over the requests that wrk counted. wrk keeps
//! its connections busy (a closed loop): p50 and p99 are those at saturation, and only comparable with each other.
//!
//! `cargo build --release -p tollgate-gateway && cargo run --release -p tests --bin gateway-bench`
//! needs `nginx`, `wrk` and `taskset`; what is missing is named and nothing is measured.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use tests::{Cluster, Options, client, free_addr, get};

/// One Tollgate node beside nginx: CPU a request, requests a second, latency.
#[derive(Parser)]
struct Args {
    /// Connections, one point each.
    #[arg(long, value_delimiter = ',', default_value = "64,512")]
    connections: Vec<u32>,
    /// Seconds of a measurement.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds; in each, both sides are measured at every point.
    #[arg(long, default_value_t = 4)]
    rounds: usize,
    /// The release build of tollgate; the one beside this bench when not given.
    #[arg(long, env = "GATEWAY_BINARY")]
    tollgate: Option<PathBuf>,
    /// Where the node keeps its data; a temporary directory when not given.
    #[arg(long)]
    dir: Option<PathBuf>,
}

const GATEWAY_CORE: &str = "0";
const LOAD_CORE: &str = "1";

/// One measurement.
#[derive(Debug, Clone, Copy)]
struct Figures {
    cpu_us: f64,
    per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let missing: Vec<&str> = ["nginx", "wrk", "taskset"].into_iter().filter(|tool| !is_there(tool)).collect();
    if !missing.is_empty() {
        println!("gateway bench: missing {}; nothing was measured", missing.join(", "));
        return Ok(());
    }
    ensure!(std::thread::available_parallelism()?.get() >= 2, "the gateways and the load want a core each: found one");
    let binary = args.tollgate.clone().unwrap_or_else(tests::binary);
    bench(&args, &binary)
}

fn is_there(tool: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(tool).is_file())
}

fn bench(args: &Args, binary: &Path) -> Result<()> {
    let dir = tempfile::tempdir().context("make a temporary directory")?;
    let upstream_addr = free_addr();
    let _upstream = Nginx::start(&dir.path().join("upstream"), LOAD_CORE, &upstream_config(&upstream_addr))?;

    let mut cluster = Cluster::new(
        1,
        &Options {
            args: ["--workers", "1", "--log-level", "warn"].map(str::to_owned).to_vec(),
            wrapper: ["taskset", "-c", GATEWAY_CORE].map(str::to_owned).to_vec(),
            data_dir: args.dir.clone(),
            binary: Some(binary.to_owned()),
            ..Options::default()
        },
    );
    cluster.start_all();
    let node = &cluster.nodes[0];
    let admin = node.admin();
    admin.put_route(&format!("http://{upstream_addr}"));
    // Limits and a quota that are counted on every request and never reached.
    admin.put_tier(
        "bench",
        &serde_json::json!({
            "limits": [{ "name": "per-second", "per": ["key"], "rate": "1000000/s", "burst": 1_000_000 }],
            "quotas": [{ "name": "monthly", "unit": "requests", "limit": 1_000_000_000_000_u64, "period": "month" }],
        }),
    );
    admin.create_account("bench", "bench");
    let (_, key) = admin.create_key("bench", &serde_json::json!({ "name": "bench" }));

    let nginx_addr = free_addr();
    let nginx_dir = dir.path().join("gateway");
    let nginx = Nginx::start(&nginx_dir, GATEWAY_CORE, &gateway_config(&nginx_addr, &upstream_addr, &key))?;

    let sides = [("nginx", format!("http://{nginx_addr}/scan")), ("tollgate", node.url("/scan"))];
    for (name, url) in &sides {
        let answer = get(&client(), url, &key).with_context(|| format!("ask {name}"))?;
        ensure!(answer.status == 200, "{name} answered {}: {}", answer.status, answer.text);
        let refused = get(&client(), url, "tg_live_wrong").with_context(|| format!("ask {name} with a wrong key"))?;
        ensure!(refused.status == 401, "{name} answered {} to a wrong key", refused.status);
    }

    let mut table = vec![[Vec::new(), Vec::new()]; args.connections.len()];
    for round in 0..args.rounds {
        for (point, &connections) in args.connections.iter().enumerate() {
            // A B, then B A: neither side always finds the machine as the other left it.
            let order = if round % 2 == 0 { [0, 1] } else { [1, 0] };
            for side in order {
                let processes = if side == 0 { nginx.processes() } else { vec![node.pid()] };
                let figures = measure(&sides[side].1, &key, connections, args.seconds, &processes)?;
                eprintln!("round {} {connections:4} connections {:8} {figures:?}", round + 1, sides[side].0);
                table[point][side].push(figures);
            }
        }
    }
    print(args, &table);
    Ok(())
}

fn print(args: &Args, table: &[[Vec<Figures>; 2]]) {
    println!("One worker on one core each, {} rounds of {} s, medians.\n", args.rounds, args.seconds);
    println!(
        "| connections | gateway | CPU us a request | requests/s | p50 ms | p99 ms | CPU against nginx (each round) |"
    );
    println!("|---|---|---|---|---|---|---|");
    for (connections, [nginx, tollgate]) in args.connections.iter().zip(table) {
        let ratios: Vec<f64> =
            nginx.iter().zip(tollgate).map(|(nginx, tollgate)| tollgate.cpu_us / nginx.cpu_us).collect();
        let each: Vec<String> = ratios.iter().map(|ratio| format!("{ratio:.2}")).collect();
        let ratio = format!("{:.2} ({})", median(&ratios), each.join(" "));
        for (name, figures, ratio) in [("nginx", nginx, "1"), ("tollgate", tollgate, ratio.as_str())] {
            let of = |field: fn(&Figures) -> f64| median(&figures.iter().map(field).collect::<Vec<_>>());
            println!(
                "| {connections} | {name} | {:.1} | {:.0} | {:.2} | {:.2} | {ratio} |",
                of(|figures| figures.cpu_us),
                of(|figures| figures.per_second),
                of(|figures| figures.p50_ms),
                of(|figures| figures.p99_ms),
            );
        }
    }
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) }
}

/// Warms up for a second, then counts.
fn measure(url: &str, key: &str, connections: u32, seconds: u64, processes: &[u32]) -> Result<Figures> {
    wrk(url, key, connections, 1)?;
    let before = cpu_us(processes)?;
    let text = wrk(url, key, connections, seconds)?;
    let cpu = cpu_us(processes)? - before;
    let wrong = text.lines().find(|line| line.contains("Non-2xx") || line.contains("Socket errors"));
    ensure!(wrong.is_none(), "not every request was answered with 200: {}", wrong.unwrap_or_default());
    let word = |start: &str| {
        let line = text.lines().map(str::trim).find_map(|line| line.strip_prefix(start));
        line.map(str::trim).with_context(|| format!("find {start:?} in what wrk says:\n{text}"))
    };
    let counted = text.lines().map(str::trim).find_map(|line| line.split_once(" requests in "));
    let (requests, _) = counted.with_context(|| format!("find the count of requests in what wrk says:\n{text}"))?;
    let requests: f64 = requests.parse().context("read wrk's count of requests")?;
    Ok(Figures {
        cpu_us: cpu / requests,
        per_second: word("Requests/sec:")?.parse().context("read wrk's rate")?,
        p50_ms: milliseconds(word("50%")?)?,
        p99_ms: milliseconds(word("99%")?)?,
    })
}

fn wrk(url: &str, key: &str, connections: u32, seconds: u64) -> Result<String> {
    let mut wrk = Command::new("taskset");
    wrk.args(["-c", LOAD_CORE, "wrk", "--latency", "-t1"]).arg(format!("-c{connections}")).arg(format!("-d{seconds}s"));
    wrk.arg("-H").arg(format!("Authorization: Bearer {key}")).arg(url);
    let done = wrk.output().context("run wrk")?;
    ensure!(done.status.success(), "wrk failed: {}", String::from_utf8_lossy(&done.stderr));
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// wrk's `812.00us`, `1.23ms`, `1.02s` in milliseconds.
fn milliseconds(text: &str) -> Result<f64> {
    let units = [("us", 0.001), ("ms", 1.0), ("s", 1000.0)];
    let Some((number, factor)) = units.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, factor)))
    else {
        bail!("read wrk's time {text:?}: expected us, ms or s");
    };
    Ok(number.parse::<f64>().with_context(|| format!("read wrk's time {text:?}"))? * factor)
}

/// User and system time of these processes, all their threads.
fn cpu_us(processes: &[u32]) -> Result<f64> {
    // USER_HZ is 100 on every Linux that this runs on.
    const TICK_US: f64 = 10_000.0;
    let mut ticks = 0;
    for pid in processes {
        let stat =
            fs::read_to_string(format!("/proc/{pid}/stat")).with_context(|| format!("read the times of {pid}"))?;
        // The name may hold blanks; the fields after it do not. utime and stime are the 14th and 15th of all.
        let (_, fields) = stat.rsplit_once(')').context("find the end of a process's name")?;
        let times = fields.split_whitespace().skip(11).take(2);
        ticks += times.map(|field| field.parse::<u32>().context("read a time")).sum::<Result<u32>>()?;
    }
    Ok(f64::from(ticks) * TICK_US)
}

/// An nginx of its own directory, in the foreground, ended when dropped.
struct Nginx {
    process: Child,
}

impl Nginx {
    fn start(dir: &Path, core: &str, config: &str) -> Result<Self> {
        fs::create_dir_all(dir).context("make nginx's directory")?;
        let file = dir.join("nginx.conf");
        fs::write(&file, config).context("write nginx's configuration")?;
        let mut command = Command::new("taskset");
        command.args(["-c", core, "nginx", "-e"]).arg(dir.join("error.log")).arg("-p").arg(dir).arg("-c").arg(&file);
        let process = command.stdin(Stdio::null()).spawn().context("start nginx")?;
        let nginx = Self { process };
        let start = Instant::now();
        while nginx.processes().len() < 2 {
            let log = fs::read_to_string(dir.join("error.log")).unwrap_or_default();
            ensure!(start.elapsed() < Duration::from_secs(10), "nginx did not start: {log}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(nginx)
    }

    /// Its master and workers.
    fn processes(&self) -> Vec<u32> {
        let master = self.process.id();
        let children = fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap_or_default();
        std::iter::once(master).chain(children.split_whitespace().filter_map(|pid| pid.parse().ok())).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its workers.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
    }
}

/// What both kinds have: one worker in the foreground, its files in its own directory.
fn config(http: &str) -> String {
    format!(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 16384;\npid nginx.pid;\nerror_log error.log warn;\n\
         events {{ worker_connections 8192; }}\n\
         http {{\n  keepalive_requests 1000000000;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
         fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n{http}}}\n"
    )
}

fn upstream_config(addr: &str) -> String {
    config(&format!(
        "  access_log off;\n  server {{\n    listen {addr} backlog=4096;\n    default_type application/json;\n    \
         location / {{ return 200 '{{\"findings\":[]}}'; }}\n  }}\n"
    ))
}

/// The same job: key, limit, log, keep-alive proxy.
fn gateway_config(addr: &str, upstream: &str, key: &str) -> String {
    config(&format!(
        r#"  map_hash_bucket_size 256;
  map $http_authorization $account {{ default ""; "Bearer {key}" bench; }}
  limit_req_zone $account zone=limits:10m rate=1000000r/s;
  log_format row escape=json '{{"request_id":"$request_id","ts":"$time_iso8601","account":"$account","method":"$request_method",'
    '"path":"$uri","status":$status,"bytes_in":$request_length,"bytes_out":$body_bytes_sent,"duration":$request_time,'
    '"upstream":"$upstream_response_time","client_ip":"$remote_addr"}}';
  access_log access.log row buffer=64k flush=1s;
  upstream scan {{ server {upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen {addr} backlog=4096;
    location / {{
      if ($account = "") {{ return 401; }}
      limit_req zone=limits burst=100000 nodelay;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Authorization "";
      proxy_pass http://scan;
    }}
  }}
"#
    ))
}
