//! The self-test holds.

use crate::run;

#[test]
fn faults_that_are_known_are_found() {
    let (code, text) = run(&["selftest"]);
    assert_eq!(code, 0, "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("ok ")).count(), 8, "{text}");
}
