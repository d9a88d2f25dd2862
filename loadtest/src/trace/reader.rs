//! Reads a trace, line by line.

use std::io::BufRead;

use super::{Bad, Header, Record, record::VERSION, target};

/// Longest line: what a body may have, and some room.
const MAX_LINE_BYTES: usize = 24 * 1024 * 1024;

/// Lines of a text, bounded, numbered.
pub(crate) struct Lines<R> {
    input: R,
    file: String,
    line: u64,
    buffer: Vec<u8>,
}

impl<R: BufRead> Lines<R> {
    /// Of a file, named as people know it.
    pub(crate) fn new(input: R, file: &str) -> Self {
        Self { input, file: file.to_owned(), line: 0, buffer: Vec::new() }
    }

    /// The file's name.
    pub(crate) fn file(&self) -> &str {
        &self.file
    }

    /// The number of the line that was read last.
    pub(crate) fn number(&self) -> u64 {
        self.line
    }

    /// The next line that is not blank, without its end.
    pub(crate) fn next(&mut self) -> Option<Result<&[u8], Bad>> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let mut limited = std::io::Read::take(&mut self.input, MAX_LINE_BYTES as u64 + 1);
            match limited.read_until(b'\n', &mut self.buffer) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(Bad::fatal(&self.file, self.line, format!("cannot be read: {error}")))),
            }
            if self.buffer.len() > MAX_LINE_BYTES {
                let what = format!("the line is longer than {MAX_LINE_BYTES} bytes");
                return Some(Err(Bad::fatal(&self.file, self.line, what)));
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Some(Ok(self.buffer.trim_ascii_end()));
            }
        }
    }
}

/// A trace.
pub(crate) struct Reader<R> {
    lines: Lines<R>,
    header: Header,
}

impl<R: BufRead> Reader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// The file is not a trace, or one of another version.
    pub(crate) fn new(input: R, file: &str) -> Result<Self, Bad> {
        let mut lines = Lines::new(input, file);
        let expected =
            r#"expected a trace's header {"tollgate_trace":1,…}; other formats: tollgate-loadtest trace convert"#;
        let header = match lines.next() {
            None => return Err(Bad::fatal(file, 1, format!("the file is empty; {expected}"))),
            Some(line) => serde_json::from_slice::<Header>(line?).map_err(|error| Bad {
                fatal: true,
                ..Bad::line(file, 1, error.column(), format!("{expected}: {error}"))
            })?,
        };
        if header.tollgate_trace != VERSION {
            let what =
                format!("version {} of the trace format; this program reads version {VERSION}", header.tollgate_trace);
            return Err(Bad::fatal(file, 1, what));
        }
        Ok(Self { lines, header })
    }

    /// Its first line.
    pub(crate) fn header(&self) -> &Header {
        &self.header
    }
}

impl<R: BufRead> Iterator for Reader<R> {
    /// With the line's number.
    type Item = Result<(u64, Record), Bad>;

    fn next(&mut self) -> Option<Self::Item> {
        let parsed = match self.lines.next()? {
            // What could not be sent is told here, where its place is known.
            Ok(line) => serde_json::from_slice::<Record>(line).map(|record| {
                target::check(&record).map_err(|(name, what)| (column(line, name), what)).map(|()| record)
            }),
            Err(bad) => return Some(Err(bad)),
        };
        let (file, number) = (self.lines.file(), self.lines.number());
        Some(match parsed {
            Ok(Ok(record)) => Ok((number, record)),
            Ok(Err((column, what))) => Err(Bad::line(file, number, column, what)),
            Err(error) => {
                // serde_json's own text ends with "at line 1 column n", which is the line's place in itself.
                let text = error.to_string();
                let text = text.split(" at line ").next().unwrap_or_default();
                let what = format!(r#"{text}; expected {{"t":ns,"m":"GET","p":"/path",…}}"#);
                Err(Bad::line(file, number, error.column(), what))
            }
        })
    }
}

/// Where a line's field is named, from 1.
fn column(line: &[u8], name: &str) -> usize {
    let name = format!("\"{name}\"");
    line.windows(name.len()).position(|part| part == name.as_bytes()).map_or(1, |at| at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_could_not_be_sent_is_bad_at_its_field() {
        let text = concat!(
            "{\"tollgate_trace\":1}\n",
            "{\"t\":0,\"m\":\"GET\",\"p\":\"/a<b\"}\n",
            "{\"t\":0,\"m\":\"\",\"p\":\"/a\"}\n",
            "{\"t\":0,\"m\":\"GET\",\"p\":\"/a\",\"h\":{\"x\":\"1\\n2\"}}\n",
            "{\"t\":0,\"m\":\"GET\",\"p\":\"/a%3Cb?c=d\",\"h\":{\"x\":\"ü\"}}\n",
        );
        let lines: Vec<_> = Reader::new(text.as_bytes(), "f").expect("a trace").collect();
        let places: Vec<_> = lines.iter().map(|line| line.as_ref().err().map(|bad| (bad.line, bad.column))).collect();
        assert_eq!(places, [Some((2, 18)), Some((3, 8)), Some((4, 27)), None]);
    }
}
