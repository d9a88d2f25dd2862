//! Programs of this workspace that tests and tools run: where they are, and how they get there.

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The `tollgate` binary: the one that `GATEWAY_BINARY` names, or the one beside the test's own executable, built now when it
/// is missing or older than its sources (`cargo test -p tests` alone does not build it, `cargo test --workspace` does).
///
/// # Panics
/// When it cannot be built.
pub fn binary() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let found = || program_of("GATEWAY_BINARY", "tollgate", &["Cargo.lock", "gateway/src", "store/src"]);
    FOUND.get_or_init(found).clone()
}

/// The `tollgate-loadtest` binary, as [`binary`] finds the gateway's; `LOADTEST_BINARY` names another.
///
/// # Panics
/// When it cannot be built.
pub fn loadtest() -> PathBuf {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    let found = || program_of("LOADTEST_BINARY", "tollgate-loadtest", &["Cargo.lock", "loadtest/src"]);
    FOUND.get_or_init(found).clone()
}

fn program_of(variable: &str, program: &str, sources: &[&str]) -> PathBuf {
    if let Some(named) = std::env::var_os(variable) {
        return named.into();
    }
    let path = directory().join(program);
    assert!(is_fresh(&path, sources) || build(program, &[]), "{program} cannot be built");
    path
}

/// Whether the binary is newer than every source that it may be made of.
fn is_fresh(binary: &Path, sources: &[&str]) -> bool {
    let changed = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
    let Some(built) = changed(binary) else { return false };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace");
    let mut waiting: Vec<PathBuf> = sources.iter().map(|path| root.join(path)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path());
            // Tests are no part of it.
            waiting.extend(entries.filter(|path| path.file_stem() != Some(OsStr::new("tests"))));
        } else if changed(&path).is_some_and(|time| time > built) {
            return false;
        }
    }
    true
}

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
