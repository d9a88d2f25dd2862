//! Files, plain or compressed, or `-`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

use crate::exit::Usage;

const BUFFER_BYTES: usize = 256 * 1024;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const BYTE_ORDER_MARK: [u8; 3] = [0xef, 0xbb, 0xbf];
const ZSTD_LEVEL: i32 = 3;

/// Opens a file to be read; what it is compressed with is seen from its first bytes. `-` is stdin.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        let file = File::open(path);
        Box::new(file.map_err(|error| Usage::error(format!("open {}: {error}", path.display())))?)
    };
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    // A directory, mostly.
    let start = file.fill_buf().map_err(|error| Usage::error(format!("read {}: {error}", path.display())))?;
    Ok(if start.starts_with(&GZIP) {
        Box::new(Unmarked::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file))))
    } else if start.starts_with(&ZSTD) {
        let decoder = zstd::Decoder::with_buffer(file).context("start zstd")?;
        Box::new(Unmarked::new(BufReader::with_capacity(BUFFER_BYTES, decoder)))
    } else {
        Box::new(Unmarked::new(file))
    })
}

/// A text without the byte-order mark that some programs put before it (HAR 1.2 tells readers to pass over it).
struct Unmarked<R> {
    inner: R,
    begun: bool,
}

impl<R: BufRead> Unmarked<R> {
    fn new(inner: R) -> Self {
        Self { inner, begun: false }
    }
}

impl<R: BufRead> BufRead for Unmarked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.begun {
            let mark = self.inner.fill_buf()?.starts_with(&BYTE_ORDER_MARK);
            self.inner.consume(if mark { BYTE_ORDER_MARK.len() } else { 0 });
            self.begun = true;
        }
        self.inner.fill_buf()
    }

    fn consume(&mut self, bytes: usize) {
        self.inner.consume(bytes);
    }
}

impl<R: BufRead> Read for Unmarked<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(into)?;
        self.consume(read);
        Ok(read)
    }
}

/// A file that is being written. It gets its name in [`Output::finish`]: what was broken off leaves no half of it.
pub(crate) struct Output {
    packing: Packing,
    /// The name that it has until then, and the one that it gets; neither for stdout, pipes and devices.
    names: Option<(PathBuf, PathBuf)>,
}

enum Packing {
    Plain(BufWriter<Box<dyn Write + Send>>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
    Over,
}

/// Makes a file; its name's end (`.gz`, `.zst`) says how it is compressed. `-` is stdout.
pub(crate) fn create(path: &Path) -> Result<Output> {
    if path == Path::new("-") {
        let stdout = BufWriter::with_capacity(BUFFER_BYTES, Box::new(io::stdout()) as _);
        return Ok(Output { packing: Packing::Plain(stdout), names: None });
    }
    let wrong = |error: io::Error| Usage::error(format!("make {}: {error}", path.display()));
    let is_special = std::fs::metadata(path).is_ok_and(|there| !there.is_file());
    let names = if is_special { None } else { Some(names(path).map_err(wrong)?) };
    let file = File::create(names.as_ref().map_or(path, |(part, _)| part)).map_err(wrong)?;
    let packing = match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => Packing::Gzip(Box::new(GzEncoder::new(BufWriter::new(file), Compression::default()))),
        Some("zst") => Packing::Zstd(Box::new(zstd::Encoder::new(BufWriter::new(file), ZSTD_LEVEL)?)),
        _ => Packing::Plain(BufWriter::with_capacity(BUFFER_BYTES, Box::new(file))),
    };
    Ok(Output { packing, names })
}

/// A name beside it, and where it really is: a link stays one.
fn names(path: &Path) -> io::Result<(PathBuf, PathBuf)> {
    let whole = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name().ok_or_else(|| io::Error::other("expected a file's name"))?;
    let mut part = name.to_owned();
    part.push(format!(".{}.part", std::process::id()));
    Ok((whole.with_file_name(part), whole))
}

impl Output {
    /// Writes the end.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        match std::mem::replace(&mut self.packing, Packing::Over) {
            Packing::Plain(mut file) => file.flush()?,
            Packing::Gzip(encoder) => encoder.finish()?.flush()?,
            Packing::Zstd(encoder) => encoder.finish()?.flush()?,
            Packing::Over => {}
        }
        if let Some((part, whole)) = &self.names {
            std::fs::rename(part, whole)?;
            self.names = None;
        }
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if let Some((part, _)) = &self.names {
            let _ = std::fs::remove_file(part);
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.packing {
            Packing::Plain(file) => file.write(bytes),
            Packing::Gzip(encoder) => encoder.write(bytes),
            Packing::Zstd(encoder) => encoder.write(bytes),
            Packing::Over => Ok(0),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.packing {
            Packing::Plain(file) => file.flush(),
            Packing::Gzip(encoder) => encoder.flush(),
            Packing::Zstd(encoder) => encoder.flush(),
            Packing::Over => Ok(()),
        }
    }
}
