//! `cargo xtask`; see [`ais_tests::xtask`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ais_tests::xtask::main()
}
