//! What is in the binary that is shipped.

use std::{fs, path::Path};

use tests::{binary, command};

#[test]
fn the_product_has_no_part_of_the_simulation() {
    let bytes = fs::read(binary()).expect("the binary is there");
    let text = String::from_utf8_lossy(&bytes);
    // Crates leave their names in what panics would say.
    assert!(text.contains("openraft"), "a binary without names says nothing");
    assert!(!text.contains("turmoil"), "it was built with the feature `simulation`");
}

#[test]
fn the_image_has_what_the_binary_is_linked_against() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package is in the workspace");
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).expect("read the Dockerfile");
    let manifest = fs::read_to_string(root.join("Cargo.toml")).expect("read Cargo.toml");
    let value = |text: &str, key: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("no {key:?}")).trim_matches(['=', ' ', '"']).to_owned()
    };
    assert_eq!(value(&dockerfile, "ARG RUST"), value(&manifest, "rust-version"));
    // What the package list of that image's base has: libc6 and libgcc-s1.
    assert!(dockerfile.contains("FROM gcr.io/distroless/cc-debian12:nonroot"), "look at the list below anew");
    const THERE: [&str; 8] = [
        "linux-vdso.so",
        "ld-linux-",
        "libc.so.6",
        "libm.so.6",
        "libgcc_s.so.1",
        "libpthread.so.0",
        "libdl.so.2",
        "librt.so.1",
    ];
    let Ok(output) = command("ldd").arg(binary()).output() else {
        println!("skipped: ldd is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().next()?.rsplit('/').next()).collect();
    assert!(names.contains(&"libc.so.6"), "{text}");
    let others: Vec<&&str> = names.iter().filter(|name| !THERE.iter().any(|there| name.starts_with(there))).collect();
    assert!(others.is_empty(), "the image has no {others:?}");
}
