//! `tollgate-loadtest`: sends requests on a fixed schedule and tells how long they took.
//!
//! Open loop: request `n` is due at `n / rate`, whatever became of those before it, and its latency counts from that instant
//! (no coordinated omission). Speaks only HTTP; knows nothing of Tollgate's types.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use clap::Parser;
use hdrhistogram::Histogram;
use http::{Method, Request, Uri, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::Instant};

/// Latencies are kept from 1 us to 10 minutes.
const LONGEST_US: u64 = 600_000_000;

/// Sends requests on a fixed schedule and tells how long they took.
#[derive(Parser)]
#[command(
    version,
    after_help = "Example:\n  TOLLGATE_KEY=tg_live_… tollgate-loadtest http://127.0.0.1:8080/v3/health --rate 500"
)]
struct Args {
    /// Where to: http://host:port/path.
    url: Uri,
    /// Requests a second.
    #[arg(long, default_value_t = 100)]
    rate: u64,
    /// Seconds.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Connections. A request that finds all of them busy waits for one; the wait is part of its latency.
    #[arg(long, default_value_t = 64)]
    connections: usize,
    /// Sent with POST when given, else GET without a body.
    #[arg(long)]
    body: Option<String>,
    /// API key, sent as a bearer token. From the environment only, so that it is in no process list.
    #[arg(long, env = "TOLLGATE_KEY", hide = true, hide_env_values = true)]
    key: Option<String>,
}

#[derive(Default)]
struct Outcomes {
    by_status: BTreeMap<String, u64>,
    latency_us: Option<Histogram<u64>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let args = Arc::new(Args::parse());
    if args.rate == 0 || args.connections == 0 {
        bail!("--rate and --connections must be at least 1");
    }
    let authority = args.url.authority().context("the URL needs a host: http://host:port/path")?.as_str().to_owned();
    let outcomes = Arc::new(Mutex::new(Outcomes {
        latency_us: Some(Histogram::new_with_bounds(1, LONGEST_US, 3).context("make a histogram")?),
        ..Outcomes::default()
    }));
    let total = args.rate * args.seconds;
    let next = Arc::new(AtomicU64::new(0));
    let start = Instant::now() + Duration::from_millis(50);
    let workers: Vec<_> = (0..args.connections)
        .map(|_| {
            let (args, authority) = (Arc::clone(&args), authority.clone());
            let (outcomes, next) = (Arc::clone(&outcomes), Arc::clone(&next));
            tokio::spawn(async move {
                let mut connection = None;
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= total {
                        return;
                    }
                    let due = start + Duration::from_nanos(number * 1_000_000_000 / args.rate);
                    tokio::time::sleep_until(due).await;
                    let outcome = match send(&args, &authority, &mut connection).await {
                        Ok(status) => status.to_string(),
                        Err(error) => {
                            connection = None;
                            format!("error: {error:#}")
                        }
                    };
                    let took = u64::try_from(due.elapsed().as_micros()).unwrap_or(LONGEST_US);
                    let mut outcomes = outcomes.lock().expect("no holder of this lock panics");
                    *outcomes.by_status.entry(outcome).or_default() += 1;
                    if let Some(histogram) = &mut outcomes.latency_us {
                        histogram.saturating_record(took.max(1));
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.context("a worker ended early")?;
    }
    let took = start.elapsed().as_secs_f64();
    let outcomes = outcomes.lock().expect("no holder of this lock panics");
    println!("{total} requests in {took:.2} s ({:.0}/s, planned {}/s)", total as f64 / took, args.rate);
    for (status, count) in &outcomes.by_status {
        println!("  {status:<24} {count}");
    }
    if let Some(histogram) = &outcomes.latency_us {
        let ms = |q: f64| histogram.value_at_quantile(q) as f64 / 1_000.0;
        println!(
            "latency from the intended send, ms: p50 {:.2}  p99 {:.2}  p99.9 {:.2}  max {:.2}",
            ms(0.5),
            ms(0.99),
            ms(0.999),
            histogram.max() as f64 / 1_000.0
        );
    }
    Ok(())
}

async fn send(
    args: &Args,
    authority: &str,
    connection: &mut Option<SendRequest<Full<Bytes>>>,
) -> Result<http::StatusCode> {
    if connection.as_ref().is_none_or(SendRequest::is_closed) {
        let stream = TcpStream::connect(authority).await.context("connect")?;
        stream.set_nodelay(true).context("set TCP_NODELAY")?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.context("begin HTTP")?;
        tokio::spawn(driver);
        *connection = Some(sender);
    }
    let sender = connection.as_mut().context("connect")?;
    sender.ready().await.context("connection lost")?;
    let path = args.url.path_and_query().map_or("/", |path| path.as_str());
    let method = if args.body.is_some() { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, authority);
    if let Some(key) = &args.key {
        request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
    }
    if args.body.is_some() {
        request = request.header(header::CONTENT_TYPE, "application/json");
    }
    let body = Full::from(args.body.clone().unwrap_or_default());
    let response = sender.send_request(request.body(body).context("make the request")?).await.context("send")?;
    let status = response.status();
    response.into_body().collect().await.context("read the answer")?;
    Ok(status)
}
