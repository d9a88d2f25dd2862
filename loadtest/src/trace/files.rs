//! Files, plain or compressed, or `-`.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::{Context, Result};
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

const BUFFER_BYTES: usize = 256 * 1024;
const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
const ZSTD_LEVEL: i32 = 3;

/// Opens a file to be read; what it is compressed with is seen from its first bytes. `-` is stdin.
pub(crate) fn open(path: &Path) -> Result<Box<dyn BufRead + Send>> {
    let file: Box<dyn Read + Send> = if path == Path::new("-") {
        Box::new(io::stdin())
    } else {
        Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?)
    };
    let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
    let start = file.fill_buf().with_context(|| format!("read {}", path.display()))?;
    Ok(if start.starts_with(&GZIP) {
        Box::new(BufReader::with_capacity(BUFFER_BYTES, MultiGzDecoder::new(file)))
    } else if start.starts_with(&ZSTD) {
        let decoder = zstd::Decoder::with_buffer(file).context("start zstd")?;
        Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
    } else {
        Box::new(file)
    })
}

/// A file that is being written; [`Output::finish`] ends it.
pub(crate) enum Output {
    /// As it is.
    Plain(BufWriter<Box<dyn Write + Send>>),
    /// gzip.
    Gzip(Box<GzEncoder<BufWriter<File>>>),
    /// zstd.
    Zstd(Box<zstd::Encoder<'static, BufWriter<File>>>),
}

/// Makes a file; its name's end (`.gz`, `.zst`) says how it is compressed. `-` is stdout.
pub(crate) fn create(path: &Path) -> Result<Output> {
    if path == Path::new("-") {
        return Ok(Output::Plain(BufWriter::with_capacity(BUFFER_BYTES, Box::new(io::stdout()))));
    }
    let file = File::create(path).with_context(|| format!("make {}", path.display()))?;
    Ok(match path.extension().and_then(|end| end.to_str()) {
        Some("gz") => Output::Gzip(Box::new(GzEncoder::new(BufWriter::new(file), Compression::default()))),
        Some("zst") => Output::Zstd(Box::new(zstd::Encoder::new(BufWriter::new(file), ZSTD_LEVEL)?)),
        _ => Output::Plain(BufWriter::with_capacity(BUFFER_BYTES, Box::new(file))),
    })
}

impl Output {
    /// Writes the end.
    pub(crate) fn finish(self) -> io::Result<()> {
        match self {
            Self::Plain(mut file) => file.flush(),
            Self::Gzip(encoder) => encoder.finish()?.flush(),
            Self::Zstd(encoder) => encoder.finish()?.flush(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(encoder) => encoder.flush(),
            Self::Zstd(encoder) => encoder.flush(),
        }
    }
}
