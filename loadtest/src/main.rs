//! The binary `tollgate-loadtest`.

fn main() -> std::process::ExitCode {
    tollgate_loadtest::main()
}
