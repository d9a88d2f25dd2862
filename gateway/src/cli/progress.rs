//! Progress of long work, on stderr: a line that is written over on a terminal, else a line now and then. What is done soon says
//! nothing.

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// When something is said.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Work that is done before says nothing.
    first: Duration,
    /// Between two lines.
    step: Duration,
    /// Whether a line is written over the one before, and cleared at the end.
    over: bool,
}

const TERMINAL: Pace = Pace { first: Duration::from_secs(1), step: Duration::from_millis(250), over: true };
/// A pipe, a file, a CI's log.
const LOG: Pace = Pace { first: Duration::from_secs(10), step: Duration::from_secs(10), over: false };

/// Work that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Progress {
    work: Arc<Work>,
    teller: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Work {
    /// What is done, as people say it.
    what: String,
    /// Things that were done, and what they are.
    count: AtomicU64,
    unit: &'static str,
    begun: Instant,
    done: Mutex<bool>,
    ended: Condvar,
}

impl Progress {
    /// Begins to tell of work whose steps are not seen.
    pub(crate) fn begin(what: impl Into<String>) -> Self {
        Self::of(what, "")
    }

    /// Begins to tell of work that is counted.
    pub(crate) fn of(what: impl Into<String>, unit: &'static str) -> Self {
        let pace = if io::stderr().is_terminal() { TERMINAL } else { LOG };
        Self::told_to(io::stderr(), pace, what.into(), unit)
    }

    fn told_to(to: impl Write + Send + 'static, pace: Pace, what: String, unit: &'static str) -> Self {
        let (done, ended, count) = (Mutex::new(false), Condvar::new(), AtomicU64::new(0));
        let work = Arc::new(Work { what, count, unit, begun: Instant::now(), done, ended });
        let told = work.clone();
        // Without a thread it is only not told.
        let teller = std::thread::Builder::new().spawn(move || told.tell(to, pace)).ok();
        Self { work, teller }
    }

    /// One more is done.
    pub(crate) fn count(&self) {
        self.work.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        *self.work.done.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.work.ended.notify_all();
        // The line is cleared before anything else is written.
        if let Some(teller) = self.teller.take() {
            let _ = teller.join();
        }
    }
}

impl Work {
    fn tell(&self, mut to: impl Write, pace: Pace) {
        let (mut wait, mut width) = (pace.first, 0);
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let waited = self.ended.wait_timeout_while(done, wait, |done| !*done);
            done = waited.unwrap_or_else(PoisonError::into_inner).0;
            if *done {
                break;
            }
            let line = self.line();
            // Nobody is told when stderr has gone; the work goes on.
            let _ = if pace.over {
                width = width.max(line.chars().count());
                write!(to, "\r{line:width$}").and_then(|()| to.flush())
            } else {
                writeln!(to, "{line}")
            };
            wait = pace.step;
        }
        if width > 0 {
            let _ = write!(to, "\r{:width$}\r", "").and_then(|()| to.flush());
        }
    }

    fn line(&self) -> String {
        let (what, seconds) = (&self.what, self.begun.elapsed().as_secs());
        match self.unit {
            "" => format!("{what}: {seconds} s"),
            unit => format!("{what}: {} {unit}, {seconds} s", self.count.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().expect("no holder panics").clone()).expect("text")
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("no holder panics").write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn seen(screen: &Screen, what: &str) {
        while !screen.text().contains(what) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn long_work_is_counted_and_its_line_is_cleared_at_the_end() {
        let screen = Screen::default();
        let pace = Pace { first: Duration::ZERO, step: Duration::from_millis(1), over: true };
        let progress = Progress::told_to(screen.clone(), pace, "reading".into(), "lines");
        (0..7).for_each(|_| progress.count());
        seen(&screen, "\rreading: 7 lines, ");
        drop(progress);
        let text = screen.text();
        assert!(text.ends_with(" \r") && !text.contains('\n'), "{text:?}");
    }

    #[test]
    fn a_log_gets_whole_lines_and_short_work_says_nothing() {
        let (screen, quiet) = (Screen::default(), Screen::default());
        let pace = Pace { first: Duration::ZERO, step: Duration::from_secs(3_600), over: false };
        let progress = Progress::told_to(screen.clone(), pace, "waiting".into(), "");
        seen(&screen, "waiting: ");
        drop(progress);
        assert_eq!(screen.text().lines().count(), 1);
        let never = Pace { first: Duration::from_secs(3_600), ..pace };
        drop(Progress::told_to(quiet.clone(), never, "waiting".into(), ""));
        assert_eq!(quiet.text(), "");
    }
}
