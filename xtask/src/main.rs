//! Checks of the public interface of the library crates: `cargo xtask public-api` and `cargo xtask foreign-types`.
//!
//! Both read the JSON that rustdoc makes of a crate, with `serde_json` alone. The crates `rustdoc-types` and
//! `public-api` would describe the format, but each of their versions knows exactly one version of it, and the
//! toolchain of the workspace decides which one rustdoc writes. [`rustdoc::FORMAT_VERSION`] is the version that this
//! code knows.
//!
//! The JSON is an unstable option of rustdoc. The workspace has a stable toolchain, so cargo calls this program in
//! place of rustdoc, and the program calls rustdoc with `RUSTC_BOOTSTRAP=1`. If the variable were set for cargo, build
//! scripts would see it and all dependencies would be built again.

mod foreign_types;
mod generics;
mod impls;
mod lines;
mod manifest;
mod public_api;
mod public_items;
mod public_paths;
mod rustdoc;
mod signature;
mod workspace;

use std::process::ExitCode;

type Result<T> = std::result::Result<T, String>;

const USAGE: &str = "usage: cargo xtask COMMAND

commands:
  public-api            Print the public items of all library crates
  public-api --check    Compare the public items with the files crates/*/public-api.txt
  public-api --write    Write the files crates/*/public-api.txt
  foreign-types         Print the packages whose types or traits are in public signatures
  foreign-types --check Compare these packages with the groups `# Public` of the manifests";

/// A command, as it is written on the command line.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    PrintApi,
    CheckApi,
    WriteApi,
    PrintForeign,
    CheckForeign,
}

fn main() -> ExitCode {
    if let Some(rustdoc) = rustdoc::replaced_rustdoc() {
        return rustdoc::run_unstable(&rustdoc);
    }
    let args: Vec<String> = std::env::args().skip(1).collect();
    let done = match parse_command(&args) {
        Some(Command::PrintApi) => public_api::print(),
        Some(Command::CheckApi) => public_api::check(),
        Some(Command::WriteApi) => public_api::write(),
        Some(Command::PrintForeign) => foreign_types::print(),
        Some(Command::CheckForeign) => foreign_types::check(),
        None => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn parse_command(args: &[String]) -> Option<Command> {
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["public-api"] => Some(Command::PrintApi),
        ["public-api", "--check"] => Some(Command::CheckApi),
        ["public-api", "--write"] => Some(Command::WriteApi),
        ["foreign-types"] => Some(Command::PrintForeign),
        ["foreign-types", "--check"] => Some(Command::CheckForeign),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_option_is_refused() {
        let parse = |line: &str| parse_command(&line.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(parse("public-api --check"), Some(Command::CheckApi));
        assert_eq!(parse("foreign-types"), Some(Command::PrintForeign));
        assert_eq!(parse("foreign-types --write"), None);
        assert_eq!(parse("public-api --check --write"), None);
    }
}
