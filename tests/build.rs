//! The simulation's own `getrandom` must be found by those who look it up at run time too (`dlsym`), not only by the linker.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg-bin=simulate=-Wl,--export-dynamic-symbol=getrandom");
}
