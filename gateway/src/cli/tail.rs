//! `tollgate requests tail`: the log as it comes.

use std::{
    io::{BufRead, IsTerminal, stdin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::Value;

use super::{
    client::{Client, query},
    failure::{Failure, Result},
    output::{self, Format},
};

/// Pause before a broken connection is made again.
const AGAIN_AFTER: Duration = Duration::from_secs(1);
const PAUSED_LOOK: Duration = Duration::from_millis(100);

/// Follows until interrupted, or until `most` rows were shown. A connection that breaks is taken up where it was.
pub(crate) fn run(
    client: &Client,
    format: Format,
    pairs: &[(&'static str, Option<String>)],
    most: Option<u64>,
) -> Result<()> {
    let path = format!("/v1/requests/tail{}", query(pairs));
    let paused = pause_by_return();
    let mut last: Option<String> = None;
    let mut left = most.unwrap_or(u64::MAX);
    loop {
        let mut event = Event::default();
        for line in client.stream(&path, last.as_deref())?.lines() {
            while paused.load(Ordering::Relaxed) {
                std::thread::sleep(PAUSED_LOOK);
            }
            let Ok(line) = line else { break };
            if !line.is_empty() {
                event.take(&line);
                continue;
            }
            let done = std::mem::take(&mut event);
            let Some(row) = done.row()? else { continue };
            show(format, &row)?;
            last = done.id.or(last);
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
        eprintln!("the connection has ended; going on where it was");
        std::thread::sleep(AGAIN_AFTER);
    }
}

/// One server-sent event.
#[derive(Debug, Default)]
struct Event {
    kind: String,
    id: Option<String>,
    data: String,
}

impl Event {
    fn take(&mut self, line: &str) {
        // A line that begins with a colon is a comment.
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.kind = value.to_owned(),
            "id" => self.id = Some(value.to_owned()),
            "data" => self.data.push_str(value),
            _ => {}
        }
    }

    fn row(&self) -> Result<Option<Value>> {
        match self.kind.as_str() {
            "request" => {
                let row = serde_json::from_str(&self.data);
                row.map(Some).map_err(|error| Failure::Failed(format!("read an event: {error}")))
            }
            "error" => Err(Failure::Failed(format!("the node stopped: {}", self.data))),
            _ => Ok(None),
        }
    }
}

fn show(format: Format, row: &Value) -> Result<()> {
    match format {
        Format::Table => {
            let text = |key: &str| match &row[key] {
                Value::Null => "-".to_owned(),
                Value::String(text) => text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect(),
                other => other.to_string(),
            };
            let fields = ["ts", "account", "method", "path", "status", "outcome", "duration_us", "node", "request_id"];
            output::print(&fields.map(text).join("  "))
        }
        // One object a line: to be read as it comes.
        Format::Json => output::print(&row.to_string()),
        Format::Yaml => {
            let text = serde_saphyr::to_string(row);
            let text = text.map_err(|error| Failure::Failed(format!("write YAML: {error}")))?;
            output::print(&format!("---\n{}", text.trim_end()))
        }
    }
}

/// At a terminal, Return stops and goes on.
fn pause_by_return() -> Arc<AtomicBool> {
    let paused = Arc::new(AtomicBool::new(false));
    if stdin().is_terminal() {
        eprintln!("following; Return pauses and goes on, Ctrl-C ends");
        let switch = paused.clone();
        std::thread::spawn(move || {
            for line in stdin().lines() {
                if line.is_err() {
                    return;
                }
                let was = switch.fetch_xor(true, Ordering::Relaxed);
                eprintln!("{}", if was { "following" } else { "paused" });
            }
        });
    }
    paused
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_read_as_the_standard_says() {
        let mut event = Event::default();
        for line in [": comment", "event: request", "id: 7", "data: {\"status\":", "data:200}"] {
            event.take(line);
        }
        assert_eq!(event.id.as_deref(), Some("7"));
        assert_eq!(event.row().expect("reads").expect("a row")["status"], 200);
        assert!(Event::default().row().expect("nothing").is_none());
        assert!(Event { kind: "error".into(), ..Event::default() }.row().is_err());
    }
}
