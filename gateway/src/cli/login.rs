//! `tollgate login`: a person signs in with a browser, and this machine keeps the token.
//!
//! The sign-in is begun here, so what only its beginner may have (state, nonce, PKCE verifier) stays in this process. The
//! browser comes back to the gateway, which sends it on to the port of loopback that waits here (RFC 8252 §7.3); its code is of
//! no use to anybody else who listens there, nor on another machine.

use std::{
    io::{BufReader, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use clap::Args;
use percent_encoding::percent_decode_str;
use serde_json::json;

use super::{
    client::query,
    failure::{Failure, Result},
    remote::Remote,
};

/// As long as the gateway waits for a sign-in that has begun.
const WITHIN: Duration = Duration::from_secs(600);
/// How often it is looked whether the browser is back.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// What a browser has to send its request; it opens connections that it never uses.
const REQUEST_WITHIN: Duration = Duration::from_secs(1);
/// Longest head of a request that is read.
const MAX_HEAD_BYTES: u64 = 16 << 10;

/// The code, or what the provider says instead.
type Brought = std::result::Result<String, String>;

/// `login`
#[derive(Debug, Args)]
#[command(
    after_help = "The token is kept in a file of this user alone, and the context points at it; it ends by itself.
Examples:
  tollgate login --admin-url https://tollgate.example.com:8081
  tollgate login --context staging
  ssh -L 9999:127.0.0.1:9999 host tollgate login --port 9999"
)]
pub(crate) struct Arguments {
    /// Port of this machine's loopback that the browser is sent back to; any that is free when not said
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let failed = |error: std::io::Error| {
            Failure::Failed(format!("listen on port {} of loopback: {error}: choose another --port", self.port))
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, self.port)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let port = listener.local_addr().map_err(failed)?.port();
        let client = self.remote.stranger()?;
        let begun = client.visit(&format!("/sign-in{}", query(&[("cli_port", Some(port.to_string()))])), None)?;
        let (Some(page), Some(cookie)) = (begun.location, begun.cookie) else {
            return Err(Failure::Failed("the admin API does not send people to an identity provider".into()));
        };
        let state = page.split_once('?').and_then(|(_, query)| parameter(query, "state")).unwrap_or_default();
        eprintln!("Open this page in a browser on this machine:\n\n  {page}\n");
        let code = wait(&listener, &state, Instant::now() + WITHIN)?;
        let path = format!("/sign-in/callback{}", query(&[("code", Some(code)), ("state", Some(state))]));
        let token = client.visit(&path, Some(&cookie))?.body;
        let secret = token["secret"].as_str().ok_or_else(|| Failure::Failed("the answer has no token".into()))?;
        let (context, file) = self.remote.keep_token(secret)?;
        eprintln!("Signed in; the context {context:?} has the token.");
        if std::env::var_os("TOLLGATE_ADMIN_TOKEN").is_some() {
            eprintln!("TOLLGATE_ADMIN_TOKEN is set and outweighs it, unless --context names it.");
        }
        self.remote.output.object(&json!({
            "name": token["name"],
            "role": token["role"],
            "expires_at": token["expires_at"],
            "context": context,
            "admin_token_file": file,
        }))
    }
}

/// Answers browsers until one brings the code of this sign-in.
fn wait(listener: &TcpListener, state: &str, until: Instant) -> Result<String> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                if let Some(back) = hear(stream, state) {
                    return back.map_err(|said| Failure::NotAllowed(format!("the identity provider says {said:?}")));
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(LOOK_EVERY),
            Err(error) => return Err(Failure::Failed(format!("wait for the browser: {error}"))),
        }
        if Instant::now() >= until {
            return Err(Failure::Failed("nobody has signed in within 10 minutes: begin again".into()));
        }
    }
}

/// Reads a request and answers it; none of one that is another's.
fn hear(mut stream: TcpStream, state: &str) -> Option<Brought> {
    stream.set_nonblocking(false).ok()?;
    stream.set_read_timeout(Some(REQUEST_WITHIN)).ok()?;
    stream.set_write_timeout(Some(REQUEST_WITHIN)).ok()?;
    let until = Instant::now() + REQUEST_WITHIN;
    let mut head = Vec::new();
    let mut bytes = BufReader::new(Read::by_ref(&mut stream).take(MAX_HEAD_BYTES)).bytes();
    while !head.ends_with(b"\r\n\r\n") && Instant::now() < until {
        head.push(bytes.next()?.ok()?);
    }
    let back = brought(&String::from_utf8_lossy(&head), state);
    let text = match &back {
        Some(Ok(_)) => "Back from the identity provider. This page can be closed; the terminal says the rest.",
        Some(Err(_)) => "Not signed in: the terminal says why.",
        None => "There is nothing here.",
    };
    let length = text.len();
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {length}\r\n\
         Cache-Control: no-store\r\nConnection: close\r\n\r\n{text}",
    );
    back
}

/// What a request to `/` brings for the sign-in of this state.
fn brought(head: &str, state: &str) -> Option<Brought> {
    let query = head.strip_prefix("GET /?")?.split(' ').next()?;
    parameter(query, "state").filter(|brought| !state.is_empty() && brought == state)?;
    match (parameter(query, "code"), parameter(query, "error")) {
        (Some(code), _) => Some(Ok(code)),
        (None, Some(error)) => Some(Err(error)),
        (None, None) => None,
    }
}

fn parameter(query: &str, name: &str) -> Option<String> {
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    percent_decode_str(value).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_code_of_this_sign_in_is_taken() {
        let get = |target: &str| brought(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"), "a.1");
        assert_eq!(get("/?code=c%2Fd&state=a.1"), Some(Ok("c/d".into())));
        assert_eq!(get("/?error=access_denied&state=a.1"), Some(Err("access_denied".into())));
        for other in ["/?code=c&state=b.1", "/?code=c", "/?state=a.1", "/favicon.ico", "/x?code=c&state=a.1"] {
            assert_eq!(get(other), None, "{other}");
        }
        assert_eq!(brought("POST /?code=c&state=a.1 HTTP/1.1\r\n\r\n", "a.1"), None);
        assert_eq!(brought("GET /?code=c&state= HTTP/1.1\r\n\r\n", ""), None, "a state that is none fits nothing");
    }
}
