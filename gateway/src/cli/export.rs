//! `tollgate export`

use clap::Args;

use super::{failure::Result, output, remote::Remote};

/// `export`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate export > tollgate.yaml
  tollgate export -o json | jq '.accounts | length'
Objects come in order of their names, so that two exports are compared line by line. Keys are named by their SHA-256: applied to an
empty cluster, the file makes the same keys work there.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    remote: Remote,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let client = self.remote.client()?;
        let answer = client.read("/v1/export")?.body;
        // A file is read by `apply`: a table would not be.
        let format = match self.remote.output {
            output::Format::Table => {
                output::print(&format!("# yaml-language-server: $schema={}/schema.json", client.url()))?;
                output::Format::Yaml
            }
            format => format,
        };
        format.print(&answer, String::new)
    }
}
