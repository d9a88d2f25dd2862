//! What reads bytes of clients, operators and files, by name, for the fuzzer (`.ci/fuzz`) and for a test that feeds each a
//! little. HTTP itself is hyper's, TLS is rustls'. The product never calls it.

use crate::{admin, cli, config, otlp, stack, tls};

/// A parser and its name. What it returns does not matter: it must neither panic nor take memory that the bytes do not.
pub type Target = (&'static str, fn(&[u8]));

/// All of the gateway.
pub const TARGETS: &[Target] = &[
    ("request-headers", stack::fuzz::headers),
    ("query", admin::fuzz::query),
    ("admin-bodies", admin::fuzz::bodies),
    ("declared-file", |bytes| text(bytes, cli::parse_document_for_fuzz)),
    ("config-file", |bytes| text(bytes, config::parse_for_fuzz)),
    ("certificates", tls::parse_for_fuzz),
    ("metrics-text", |bytes| text(bytes, otlp::read_for_fuzz)),
];

fn text(bytes: &[u8], parse: impl Fn(&str)) {
    parse(&String::from_utf8_lossy(bytes));
}

#[cfg(test)]
mod tests {
    /// As the store's and the load tester's: no random test library is linked for this alone.
    #[test]
    fn no_parser_panics_on_random_bytes() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let words: [&[u8]; 12] = [
            b"{",
            b"}",
            b"[",
            b":",
            b"\"",
            b",",
            b"name",
            b"\n",
            b"00-",
            b"limits",
            b"-----BEGIN CERTIFICATE-----\n",
            b"=",
        ];
        for _ in 0..256 {
            let mut bytes = Vec::new();
            while bytes.len() < (next() % 300) as usize {
                let n = next();
                match n % 3 {
                    0 => bytes.extend_from_slice(words[(n >> 8) as usize % words.len()]),
                    1 => bytes.push(b' ' + (n >> 8) as u8 % 95),
                    _ => bytes.push((n >> 8) as u8),
                }
            }
            for (_, target) in super::TARGETS {
                target(&bytes);
            }
        }
    }
}
