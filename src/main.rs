//! Parses arguments, runs one command, exits.

use std::process::ExitCode;

fn main() -> ExitCode {
    walmill::cli::main()
}
