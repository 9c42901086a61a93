//! The binary `terse`.

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = terse::cli::Cli::parse();
    match terse::cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
