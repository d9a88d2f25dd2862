//! What does a request cost the data plane alone, without the ledger's quorum?
//!
//! Expected: some 17 to 20 us of CPU on one core at 64 keep-alive connections, about nginx's with key map, limit_req and
//! access log; the kernel takes 10 to 13 of it.
//!
//! ```sh
//! # an instant upstream, for instance nginx with `return 200 "ok"` on port 9100, then
//! MEASURE_UPSTREAM=127.0.0.1:9100 taskset -c 0 cargo test --release -p tollgate-gateway --lib \
//!     -- --ignored --nocapture one_request_costs &
//! taskset -c 1 wrk -t1 -c64 -d10s -H "X-API-Key: <the key it prints>" http://<the address it prints>/v3/scan
//! ```

use std::{sync::atomic::Ordering, time::Duration};

use super::harness::{ok, rig_with};

/// How long the load generator has.
const SECONDS: u64 = 20;

#[tokio::test]
#[ignore = "a measurement that needs a load generator"]
async fn one_request_costs() {
    let Ok(upstream) = std::env::var("MEASURE_UPSTREAM") else {
        return eprintln!("skipped: needs MEASURE_UPSTREAM=host:port and a load generator");
    };
    let rig = rig_with(ok(""), |_| {}, |_, pool| pool.targets[0].url = format!("http://{upstream}")).await;
    rig.ledger.0.only_count.store(true, Ordering::SeqCst);
    eprintln!("key {} at http://{}", rig.key, rig.addr);
    for _ in 0..SECONDS {
        let (cpu, count) = (cpu_us(), rig.ledger.0.counted.load(Ordering::SeqCst));
        tokio::time::sleep(Duration::from_secs(1)).await;
        let served = rig.ledger.0.counted.load(Ordering::SeqCst) - count;
        if served > 0 {
            let cpu = cpu_us() - cpu;
            eprintln!("{served} requests/s, {:.1} us of CPU each", cpu as f64 / served as f64);
        }
    }
}

/// CPU time of this process; ticks of 10 ms.
fn cpu_us() -> usize {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields = stat.rsplit(')').next().expect("a name in parentheses").split_ascii_whitespace();
    fields.skip(11).take(2).map(|text| text.parse::<usize>().expect("ticks") * 10_000).sum()
}
