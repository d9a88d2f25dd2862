//! Programs of this workspace that tests and tools run: where they are, and how they get there.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::Command,
};

/// Where this build's programs are.
pub(crate) fn directory() -> PathBuf {
    // <target>/<profile>/deps/it-0123456789abcdef, or <target>/<profile>/a-bench
    let own = std::env::current_exe().expect("a program knows its executable");
    let parent = own.parent().expect("an executable is in a directory");
    let dir = if parent.ends_with("deps") { parent.parent().expect("deps is in a profile") } else { parent };
    dir.to_owned()
}

/// Builds a program into [`directory`], unless it is there and newer than its sources; whether it worked.
pub(crate) fn build(program: &str, features: &[&str]) -> bool {
    let dir = directory();
    let profile = match dir.file_name().and_then(OsStr::to_str).expect("a profile's directory has a name") {
        "debug" => "dev",
        profile => profile,
    };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace");
    // `--workspace` for the same features, and so the same builds of all dependencies, as the tests have.
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--workspace", "--bin", program, "--profile", profile]).current_dir(root);
    if !features.is_empty() {
        cargo.args(["--features", &features.join(",")]);
    }
    cargo.arg("--target-dir").arg(dir.parent().expect("a profile is in a target directory"));
    cargo.status().unwrap_or_else(|error| panic!("run {cargo:?}: {error}")).success()
}
