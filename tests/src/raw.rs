//! A connection to the data plane as bytes: for what no well-behaved client does.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
};

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{Answer, PATIENCE};

/// An HTTP/1.1 connection.
#[derive(Debug)]
pub struct Raw {
    stream: BufReader<TcpStream>,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap_or_else(|error| panic!("connect to {addr}: {error}"));
        stream.set_read_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("set a timeout");
        stream.set_nodelay(true).expect("set no delay");
        Self { stream: BufReader::new(stream) }
    }

    /// Connects and sends a request's head: the start line's first two words, the key, more lines (each with its end).
    pub fn request(addr: &str, start: &str, key: &str, more: &str) -> Self {
        let mut raw = Self::connect(addr);
        let head = format!("{start} HTTP/1.1\r\nhost: {addr}\r\nauthorization: Bearer {key}\r\n{more}\r\n");
        raw.send(head.as_bytes()).expect("send a head");
        raw
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends one chunk of a chunked body; an empty one ends it.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn send_chunk(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(&chunk)
    }

    /// Reads an answer's head.
    ///
    /// # Errors
    /// The connection ended before it.
    pub fn head(&mut self) -> io::Result<Answer> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {line:?}")))?;
        let mut headers = HeaderMap::new();
        loop {
            let line = self.line()?;
            let Some((name, value)) = line.split_once(':') else { break };
            let (name, value) = (name.parse::<HeaderName>(), value.trim().parse::<HeaderValue>());
            headers.append(name.map_err(io::Error::other)?, value.map_err(io::Error::other)?);
        }
        Ok(Answer { status, headers, text: String::new(), body: Value::Null })
    }

    /// Reads an answer whose length its head says.
    ///
    /// # Errors
    /// The connection ended before it.
    pub fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head()?;
        let mut body = vec![0; answer.header("content-length").parse().map_err(io::Error::other)?];
        self.stream.read_exact(&mut body)?;
        answer.text = String::from_utf8(body).map_err(io::Error::other)?;
        answer.body = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
        Ok(answer)
    }

    /// The next chunk of a chunked body; empty at its end.
    ///
    /// # Errors
    /// The connection ended before it.
    pub fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let line = self.line()?;
        let length = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
        let mut chunk = vec![0; length + 2];
        self.stream.read_exact(&mut chunk)?;
        chunk.truncate(length);
        Ok(chunk)
    }

    /// Reads and drops everything until the other side closes; how many bytes.
    ///
    /// # Errors
    /// The connection was reset, or nothing came for long.
    pub fn rest(&mut self) -> io::Result<u64> {
        io::copy(&mut self.stream, &mut io::sink())
    }

    /// Closes both ways.
    pub fn close(self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line.trim_end().to_owned())
    }
}
