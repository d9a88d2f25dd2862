//! What a run looks like while it goes on: a live view on a terminal, elsewhere one line each five seconds.

mod live;
mod view;

use std::{
    io::{IsTerminal, stderr},
    time::{Duration, Instant},
};

use anyhow::Result;

pub(crate) use view::View;

use live::Live;

/// How often a line is printed without a terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What the person at the screen wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Pause, or go on.
    Pause,
    /// Drain; the second time, end at once.
    Stop,
}

/// Where a run is shown.
pub(crate) enum Screen {
    /// On a terminal.
    Live(Box<Live>),
    /// As lines.
    Lines {
        /// When the last one was printed.
        last: Instant,
    },
    /// Nowhere.
    Quiet,
}

impl Screen {
    /// By what stderr is.
    pub(crate) fn new(quiet: bool) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if stderr().is_terminal()
            && std::io::stdin().is_terminal()
            && let Ok(live) = Live::start()
        {
            return Self::Live(Box::new(live));
        }
        Self::Lines { last: Instant::now() }
    }

    /// Shows it.
    pub(crate) fn show(&mut self, view: &View<'_>) -> Result<Option<Asked>> {
        match self {
            Self::Quiet => Ok(None),
            Self::Lines { last } => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    eprintln!("{}", view.line());
                }
                Ok(None)
            }
            Self::Live(live) => live.show(view),
        }
    }

    /// Waits a tick, or until a key is pressed.
    pub(crate) fn wait(&mut self, tick: Duration) {
        match self {
            Self::Live(live) => live.wait(tick),
            _ => std::thread::sleep(tick),
        }
    }

    /// Gives the terminal back.
    pub(crate) fn close(&mut self) {
        if let Self::Live(live) = self {
            live.close();
        }
        *self = Self::Quiet;
    }
}
