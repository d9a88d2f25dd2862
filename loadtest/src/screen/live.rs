//! The live view.

use std::{
    io::{Stderr, stderr},
    time::Duration,
};

use anyhow::Result;
use ratatui::{
    Frame, Terminal,
    backend::CrosstermBackend,
    crossterm::{
        event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
        execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Gauge, Paragraph, Sparkline},
};

use super::{Asked, View, view::Now};
use crate::report::MOST_LAG_MS;

/// Seconds that the curves show.
const HISTORY: usize = 600;

/// A terminal that was taken, and is given back however the run ends.
pub(crate) struct Live {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    asked: Option<Asked>,
    /// Rate and p99 (us) of each second so far.
    history: Vec<(u64, u64)>,
    closed: bool,
}

impl Live {
    /// Takes the terminal.
    pub(crate) fn start() -> Result<Self> {
        enable_raw_mode()?;
        execute!(stderr(), EnterAlternateScreen)?;
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        Ok(Self { terminal, asked: None, history: Vec::new(), closed: false })
    }

    /// Draws; returns what was asked since the last time.
    pub(crate) fn show(&mut self, view: &View<'_>) -> Result<Option<Asked>> {
        let now = view.now();
        let second = usize::try_from(view.elapsed.as_secs()).unwrap_or(usize::MAX);
        if self.history.len() < second.min(86_400) {
            self.history.push((now.achieved.round() as u64, (now.corrected.p99 * 1_000.0) as u64));
        }
        let history = &self.history[self.history.len().saturating_sub(HISTORY)..];
        self.terminal.draw(|frame| draw(frame, view, &now, history))?;
        Ok(self.asked.take())
    }

    /// Waits for a key, at most a tick.
    pub(crate) fn wait(&mut self, tick: Duration) {
        let Ok(true) = event::poll(tick) else { return };
        let Ok(Event::Key(key)) = event::read() else { return };
        if key.kind != KeyEventKind::Press {
            return;
        }
        self.asked = match (key.code, key.modifiers) {
            (KeyCode::Char('c'), KeyModifiers::CONTROL) | (KeyCode::Char('q' | 'd') | KeyCode::Esc, _) => {
                Some(Asked::Stop)
            }
            (KeyCode::Char('p' | ' '), _) => Some(Asked::Pause),
            _ => None,
        };
    }

    /// Gives the terminal back.
    pub(crate) fn close(&mut self) {
        if !std::mem::replace(&mut self.closed, true) {
            let _ = disable_raw_mode();
            let _ = execute!(stderr(), LeaveAlternateScreen);
        }
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.close();
    }
}

fn draw(frame: &mut Frame<'_>, view: &View<'_>, now: &Now, history: &[(u64, u64)]) {
    let rows = Layout::vertical([
        Constraint::Length(3),
        Constraint::Length(4),
        Constraint::Length(7),
        Constraint::Length(7),
        Constraint::Min(5),
        Constraint::Length(1),
    ]);
    let [progress, figures, rates, latencies, outcomes, keys] = rows.areas(frame.area());
    draw_progress(frame, progress, view);
    draw_figures(frame, figures, view, now);
    let width = usize::from(frame.area().width).saturating_sub(2);
    let newest = &history[history.len().saturating_sub(width)..];
    let curve = |frame: &mut Frame<'_>, area: Rect, title: String, values: Vec<u64>, colour: Color| {
        let block = Block::bordered().title(title);
        frame.render_widget(Sparkline::default().block(block).data(values).style(Style::new().fg(colour)), area);
    };
    let title = format!(" ended/s, now {:.0} of {:.0} due ", now.achieved, now.target);
    curve(frame, rates, title, newest.iter().map(|(rate, _)| *rate).collect(), Color::Green);
    let title = format!(" p99 from the intended send, now {:.2} ms ", now.corrected.p99);
    curve(frame, latencies, title, newest.iter().map(|(_, p99)| *p99).collect(), Color::Cyan);
    draw_outcomes(frame, outcomes, view);
    frame.render_widget(Line::from(" p pause   q drain and report   q q end at once".dark_gray()), keys);
}

fn draw_progress(frame: &mut Frame<'_>, area: Rect, view: &View<'_>) {
    let elapsed = view.elapsed.as_secs_f64();
    let ratio = view.seconds.map_or(0.0, |seconds| (elapsed / seconds.max(0.001)).clamp(0.0, 1.0));
    let label = match view.seconds {
        Some(seconds) => format!("{elapsed:.0} of {seconds:.0} s, {}", view.state()),
        None => format!("{elapsed:.0} s, {}", view.state()),
    };
    let block = Block::bordered().title(format!(" {} ", view.about.title));
    frame.render_widget(Gauge::default().block(block).ratio(ratio).label(label).gauge_style(Color::Blue), area);
}

fn draw_figures(frame: &mut Frame<'_>, area: Rect, view: &View<'_>, now: &Now) {
    let late = now.lag.p99 > MOST_LAG_MS;
    let lag = Span::styled(
        format!("lag p99 {:.2} ms", now.lag.p99),
        if late { Style::new().fg(Color::Red).bold() } else { Style::new() },
    );
    let unsent = view.unsent();
    let unsent = Span::styled(
        format!("unsent {unsent}"),
        if unsent > 0 { Style::new().fg(Color::Red).bold() } else { Style::new() },
    );
    let corrected = &now.corrected;
    let lines = vec![
        Line::from(format!(
            "due {:.0}/s   ended {:.0}/s   in flight {}{}   retries {}",
            now.target,
            now.achieved,
            view.in_flight,
            view.oldest().map(|age| format!(" (the oldest {age} s)")).unwrap_or_default(),
            view.totals.sum().retries
        )),
        Line::from(vec![
            format!("p50 {:.2}   p99 {:.2}   p99.9 {:.2} ms   ", corrected.p50, corrected.p99, corrected.p999).into(),
            lag,
            "   ".into(),
            unsent,
        ]),
    ];
    frame.render_widget(Paragraph::new(lines).block(Block::bordered()), area);
}

fn draw_outcomes(frame: &mut Frame<'_>, area: Rect, view: &View<'_>) {
    let [left, right] = Layout::horizontal([Constraint::Percentage(60), Constraint::Percentage(40)]).areas(area);
    let colour = |name: &str| match name.chars().next() {
        Some('2' | '3') => Color::Green,
        _ if name.starts_with("429") => Color::Yellow,
        _ => Color::Red,
    };
    let outcomes = view.outcomes().into_iter();
    let lines: Vec<Line<'_>> =
        outcomes.map(|(name, count)| Line::from(format!("{count:>12}  {name}")).fg(colour(&name))).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" outcomes ")), left);
    let refused = view.refused().into_iter().map(|(tier, count)| Line::from(format!("{count:>12}  {tier}")));
    let events =
        view.events.iter().rev().map(|event| Line::from(format!("{:>5.1} s  {}", event.at, event.what)).fg(Color::Red));
    let lines: Vec<Line<'_>> = refused.chain(events).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" 429 by tier, events ")), right);
}
