//! The flags of the settings, made from their table.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use clap::{Arg, ArgMatches, Args, Command, FromArgMatches};

use super::table::{self, TABLE};

/// Flags that set settings; one per row of the table, and `--config`.
#[derive(Clone, Default)]
pub struct SettingArgs {
    values: BTreeMap<&'static str, String>,
    config: Option<PathBuf>,
}

impl fmt::Debug for SettingArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl SettingArgs {
    /// The file that was named.
    #[must_use]
    pub fn config(&self) -> Option<&Path> {
        self.config.as_deref()
    }

    /// The text of a flag.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

impl FromArgMatches for SettingArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        if let Some(path) = matches.get_one::<PathBuf>("config") {
            self.config = Some(path.clone());
        }
        for entry in TABLE {
            if let Some(text) = matches.get_one::<String>(entry.name) {
                self.values.insert(entry.name, text.clone());
            }
        }
        Ok(())
    }
}

impl Args for SettingArgs {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .global(true)
            .value_parser(clap::value_parser!(PathBuf))
            .help_heading("Settings")
            .help("File of settings in TOML, keys in lower case [env: CONFIG_FILE]");
        TABLE.iter().fold(command.arg(config), |command, entry| {
            let names = std::iter::once(&entry.name)
                .chain(entry.aliases)
                .copied()
                .collect::<Vec<_>>()
                .join(", ");
            let default = if entry.default.is_empty() {
                String::new()
            } else {
                format!(" [default: {}]", entry.default)
            };
            command.arg(
                Arg::new(entry.name)
                    .long(entry.flag())
                    .aliases(entry.aliases.iter().map(|name| table::flag(name)))
                    .value_name("VALUE")
                    .global(true)
                    .hide(entry.hidden)
                    .help_heading("Settings")
                    .help(format!("{} [env: {names}]{default}", entry.help)),
            )
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}
