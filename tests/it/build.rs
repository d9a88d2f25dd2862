//! What is in the binary that is shipped.

use std::fs;

use tests::binary;

#[test]
fn the_product_has_no_part_of_the_simulation() {
    let bytes = fs::read(binary()).expect("the binary is there");
    let text = String::from_utf8_lossy(&bytes);
    // Crates leave their names in what panics would say.
    assert!(text.contains("openraft"), "a binary without names says nothing");
    assert!(!text.contains("turmoil"), "it was built with the feature `simulation`");
}
