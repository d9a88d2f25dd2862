//! Writes a trace.

use std::io::Write;

use anyhow::{Context, Result};

use super::{Header, Record};

/// A trace that is being written.
pub(crate) struct Writer<W> {
    output: W,
}

impl<W: Write> Writer<W> {
    /// Writes the header.
    pub(crate) fn new(mut output: W, header: &Header) -> Result<Self> {
        serde_json::to_writer(&mut output, header).context("write the trace's header")?;
        output.write_all(b"\n").context("write the trace's header")?;
        Ok(Self { output })
    }

    /// Writes a line.
    pub(crate) fn write(&mut self, record: &Record) -> Result<()> {
        serde_json::to_writer(&mut self.output, record).context("write the trace")?;
        self.output.write_all(b"\n").context("write the trace")
    }

    /// What it writes to.
    pub(crate) fn into_inner(self) -> W {
        self.output
    }
}
