//! `tollgate completions`

use clap::Args;
use clap_complete::Shell;

use super::{failure::Result, output};

/// `completions`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tollgate completions bash > /etc/bash_completion.d/tollgate
  tollgate completions zsh
  tollgate completions fish")]
pub(crate) struct Arguments {
    /// The shell
    shell: Shell,
}

impl Arguments {
    pub(crate) fn run(self) -> Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut super::command(), "tollgate", &mut script);
        output::print(&String::from_utf8_lossy(&script))
    }
}
