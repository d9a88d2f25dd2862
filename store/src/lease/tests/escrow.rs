//! P2 over the whole escrow: three nodes, messages lost, doubled, late and out of order, leaders that change, processes that
//! start again. Time is tokio's, paused, so a run depends on its seed alone.

use super::*;
use crate::model::Gcra;

/// What happens to messages.
pub(in crate::lease) struct Chaos {
    random: u64,
    /// Of a hundred messages, so many meet a mishap.
    mishaps: u64,
}

/// Of one message.
#[derive(Debug, Default)]
pub(in crate::lease) struct Fate {
    pub(in crate::lease) there: Duration,
    pub(in crate::lease) back: Duration,
    pub(in crate::lease) lost: bool,
    pub(in crate::lease) answer_lost: bool,
    /// It comes once more, so much later.
    pub(in crate::lease) again: Option<Duration>,
}

impl Chaos {
    fn new(seed: u64, mishaps: u64) -> Self {
        Self { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, mishaps }
    }

    fn below(&mut self, most: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % most
    }

    pub(in crate::lease) fn fate(&mut self) -> Fate {
        let mut fate = Fate {
            there: Duration::from_micros(100 + self.below(400)),
            back: Duration::from_micros(100 + self.below(400)),
            ..Fate::default()
        };
        if self.below(100) < self.mishaps {
            match self.below(5) {
                0 => fate.lost = true,
                1 => fate.answer_lost = true,
                2 => fate.again = Some(Duration::from_millis(self.below(1_500))),
                3 => fate.there = Duration::from_millis(self.below(900)),
                _ => fate.back = Duration::from_millis(self.below(900)),
            }
        }
        fate
    }
}

/// What a run came to.
struct Run {
    admitted: Vec<u64>,
    gcra: Gcra,
}

impl Run {
    /// The first instant at which more were admitted than the limit lets through.
    fn too_many(&self) -> Option<u64> {
        let mut admitted = self.admitted.clone();
        admitted.sort_unstable();
        let mut tat = 0;
        for at in admitted {
            match self.gcra.take(tat, at, 1) {
                Ok(next) => tat = next,
                Err(_) => return Some(at),
            }
        }
        None
    }
}

struct Load {
    rate: String,
    burst: u64,
    /// Between two requests of a node, on average.
    every: Duration,
    seconds: u64,
    mishaps: u64,
    /// Leaders change, processes start again.
    changes: bool,
}

fn run(seed: u64, load: &Load) -> Run {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = World::new();
        *world.began.lock().expect("whole") = Some(tokio::time::Instant::now());
        *world.chaos.lock().expect("whole") = Some(Chaos::new(seed, load.mishaps));
        for node in 1..=3 {
            world.start(node, 1);
        }
        world.elect(1, 1, true);
        let client = Arc::new(client(tier(vec![rate("x", &load.rate, load.burst)], vec![], None)));
        let results: Arc<Mutex<(Vec<u64>, u64)>> = Arc::default();
        let end_ns = world.now_ns() + load.seconds * SECOND;
        for node in 1..=3u64 {
            let (world, client, results) = (world.clone(), client.clone(), results.clone());
            let mut chaos = Chaos::new(seed * 31 + node, 0);
            let every_us = load.every.as_micros() as u64;
            tokio::spawn(async move {
                while world.now_ns() < end_ns {
                    tokio::time::sleep(Duration::from_micros(chaos.below(2 * every_us))).await;
                    let (world, client, results) = (world.clone(), client.clone(), results.clone());
                    let leases = world.nodes.lock().expect("whole")[&NodeId(node)].clone();
                    let patience = if chaos.below(20) == 0 { chaos.below(2_000) } else { 10_000_000 };
                    tokio::spawn(async move {
                        let asking = client.ask(&world, &leases);
                        match tokio::time::timeout(Duration::from_micros(patience), asking).await {
                            // What a process does that is gone is nobody's.
                            Ok(Ok(_)) if !world.runs(node, &leases) => {}
                            Ok(Ok(_)) => results.lock().expect("whole").0.push(world.now_ns()),
                            Ok(Err(Denied::Refused(_))) => results.lock().expect("whole").1 += 1,
                            _ => {}
                        }
                    });
                }
            });
        }
        let (mut chaos, mut term, mut incarnation) = (Chaos::new(seed + 7, 0), 1, 1);
        while world.now_ns() < end_ns {
            tokio::time::sleep(Duration::from_millis(300 + chaos.below(2_500))).await;
            if !load.changes {
                continue;
            }
            match chaos.below(4) {
                0 => {
                    incarnation += 1;
                    let node = 1 + chaos.below(3);
                    if world.leader.lock().expect("whole").is_none_or(|(leader, _)| leader.0 != node) {
                        world.start(node, incarnation);
                    }
                }
                _ => {
                    world.depose();
                    tokio::time::sleep(Duration::from_millis(chaos.below(800))).await;
                    term += 1;
                    world.elect(1 + chaos.below(3), term, false);
                }
            }
        }
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (admitted, refused) = std::mem::take(&mut *results.lock().expect("whole"));
        assert!(refused + admitted.len() as u64 > 0, "seed {seed}: nobody asked");
        Run { admitted, gcra: Gcra::new(load.rate.parse().expect("a rate"), load.burst) }
    })
}

#[test]
fn no_window_admits_more_than_burst_and_rate() {
    let loads = [("5/s", 1), ("5/s", 10), ("40/s", 20), ("40/s", 80), ("1000/s", 500), ("30/m", 7), ("30/m", 1)];
    for seed in 0..60u64 {
        let (rate, burst) = loads[seed as usize % loads.len()];
        let load = Load {
            rate: rate.into(),
            burst,
            every: Duration::from_millis([3, 20][(seed / 7) as usize % 2]),
            seconds: 12,
            mishaps: [0, 5, 30][(seed / 3) as usize % 3],
            changes: seed % 5 > 0,
        };
        let run = run(seed, &load);
        assert!(!run.admitted.is_empty(), "seed {seed}: nothing was admitted");
        assert_eq!(run.too_many(), None, "seed {seed}: {rate}, burst {burst}: {} admitted", run.admitted.len());
    }
}

/// The checker finds what it is for.
#[test]
fn a_unit_too_many_is_found() {
    let load = Load {
        rate: "40/s".into(),
        burst: 20,
        every: Duration::from_millis(5),
        seconds: 3,
        mishaps: 0,
        changes: false,
    };
    let mut run = run(1, &load);
    assert_eq!(run.too_many(), None);
    run.admitted.push(run.admitted[0]);
    assert!(run.too_many().is_some());
}

#[test]
fn a_limit_that_is_always_asked_for_more_is_used_to_the_full() {
    for (rate, burst, every_ms) in [("40/s", 20, 10), ("1000/s", 500, 1), ("5/s", 1, 20)] {
        let load = Load {
            rate: rate.into(),
            burst,
            every: Duration::from_millis(every_ms),
            seconds: 20,
            mishaps: 0,
            changes: false,
        };
        let run = run(3, &load);
        let gcra = run.gcra;
        let most = burst + 20 * SECOND / gcra.emission_ns;
        let share = run.admitted.len() as f64 / most as f64;
        println!("{rate}, burst {burst}: {} of {most} ({:.2} %)", run.admitted.len(), 100.0 * share);
        assert!(
            share > if burst == 1 { 0.95 } else { 0.99 },
            "{rate}, burst {burst}: {} of {most}",
            run.admitted.len()
        );
    }
}

#[test]
fn an_even_client_at_80_percent_of_a_small_limit_is_never_refused() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let world = World::new();
        *world.began.lock().expect("whole") = Some(tokio::time::Instant::now());
        *world.chaos.lock().expect("whole") = Some(Chaos::new(1, 0));
        let nodes = [world.start(1, 1), world.start(2, 1), world.start(3, 1)];
        world.elect(1, 1, true);
        let client = client(tier(vec![rate("x", "5/s", 1)], vec![], None));
        for n in 0..400 {
            let granted = client.ask(&world, &nodes[n % 3]).await;
            assert!(granted.is_ok(), "request {n}: {granted:?}");
            tokio::time::sleep(Duration::from_millis(249)).await;
        }
    });
}
