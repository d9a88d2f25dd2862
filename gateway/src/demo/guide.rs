//! What the demo prints: where it is, and what to try.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
};

use store::model::{NodeInfo, Secret};

use super::setup::Made;

/// Where a node is.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    pub(super) name: String,
    pub(super) data: String,
    pub(super) admin: String,
    pub(super) peer: String,
}

impl Addresses {
    /// From what the node says of itself.
    pub(super) fn of(info: &NodeInfo) -> Self {
        Self {
            name: info.name.to_string(),
            data: info.data_addr.clone(),
            admin: info.admin_addr.clone(),
            peer: info.peer_addr.clone(),
        }
    }
}

/// Prints it to stdout.
pub(super) fn print(nodes: &[Addresses], control: Option<SocketAddr>, token: &Secret, made: &Made) -> io::Result<()> {
    let addresses: Vec<[&str; 4]> = nodes
        .iter()
        .map(|Addresses { name, data, admin, peer }| [name.as_str(), data.as_str(), admin.as_str(), peer.as_str()])
        .collect();
    let mut out = io::stdout().lock();
    match out.write_all(text(&addresses, control, token.expose(), made).as_bytes()).and_then(|()| out.flush()) {
        // Nobody reads: the demo goes on all the same.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

fn text(nodes: &[[&str; 4]], control: Option<SocketAddr>, token: &str, made: &Made) -> String {
    let mut text = String::from("\nTollgate is up.\n\n");
    for [name, data, admin, peer] in nodes {
        writeln!(text, "  {name:8} data http://{data}   admin http://{admin}   peers {peer}")
            .expect("writing to a text cannot fail");
    }
    if let Some(control) = control {
        writeln!(
            text,
            "\n  nodes are processes; control http://{control}   (POST /nodes/{}/kill, stop, start)",
            nodes[0][0]
        )
        .expect("writing to a text cannot fail");
    }
    let [_, data, admin, _] = nodes[0];
    let Made { free_key, enterprise_key } = made;
    write!(
        text,
        r#"
  key, tier free        {free_key}
  key, tier enterprise  {enterprise_key}
  admin token           {token}

A request, 200:

  curl -i http://{data}/v3/scan -H 'Authorization: Bearer {free_key}' -d '{{"payload":"card 4111 1111 1111 1111, ssn 536-90-4399"}}'

The tier free has 5 a second and 15 at once; this loop meets 429:

  for i in $(seq 25); do curl -s -o /dev/null -w '%{{http_code}} ' http://{data}/v3/scan -H 'Authorization: Bearer {free_key}' -d '{{"payload":"x"}}'; done; echo

The log, a row for each of these answers:

  curl -s 'http://{admin}/v1/requests?limit=5' -H 'Authorization: Bearer {token}'

The same with the command line: TOLLGATE_ADMIN_URL=http://{admin} TOLLGATE_ADMIN_TOKEN={token} tollgate requests list

Ctrl-C ends it.
"#
    )
    .expect("writing to a text cannot fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guide_has_three_curl_lines_with_real_addresses_and_secrets() {
        let made = Made { free_key: "tg_live_f".into(), enterprise_key: "tg_live_e".into() };
        let text = text(&[["node-1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3"]], None, "tga_x", &made);
        let lines: Vec<&str> = text.lines().filter(|line| line.contains("curl ")).collect();
        assert_eq!(lines.len(), 3);
        assert!(lines[0].contains("http://127.0.0.1:1/v3/scan") && lines[0].contains("Bearer tg_live_f"));
        assert!(lines[1].contains("seq 25") && lines[1].contains("%{http_code}"));
        assert!(lines[2].contains("http://127.0.0.1:2/v1/requests") && lines[2].contains("Bearer tga_x"));
    }
}
