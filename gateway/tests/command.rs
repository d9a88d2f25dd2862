//! The binary as a program. That this file exists also makes `cargo test --workspace` build `tollgate` beside the tests,
//! where the whole-system tests look for it: cargo builds a package's binaries for its own integration tests only.

use std::process::Command;

#[test]
fn the_binary_says_its_version_and_refuses_an_unknown_noun() {
    let tollgate = env!("CARGO_BIN_EXE_tollgate");
    let version = Command::new(tollgate).arg("--version").output().expect("run tollgate");
    assert!(version.status.success());
    assert_eq!(String::from_utf8_lossy(&version.stdout).trim(), concat!("tollgate ", env!("CARGO_PKG_VERSION")));
    let unknown = Command::new(tollgate).arg("frobnicate").output().expect("run tollgate");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("frobnicate"));
}
