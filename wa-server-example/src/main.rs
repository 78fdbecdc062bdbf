//! Reference server over wa-core.

use std::process::ExitCode;

use clap::Parser;
use wa_server_example::cli::Cli;

fn main() -> ExitCode {
    wa_server_example::cli::run(Cli::parse())
}
