//! Where settings come from.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use super::table::TABLE;
use super::{SettingArgs, SettingsError};

/// Texts of settings by name; the first source that has one counts: flags, environment, file.
#[derive(Clone, Default)]
pub struct Source {
    values: BTreeMap<&'static str, String>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Source {
    /// Gathers from flags, from an environment and from the file that they name.
    ///
    /// # Errors
    /// The file cannot be read or is no TOML, or it holds names that are no settings; all of them are named.
    pub fn gather(args: &SettingArgs, environment: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let path = args.config().map(Path::to_owned).or_else(|| {
            environment("CONFIG_FILE")
                .filter(|path| !path.is_empty())
                .map(Into::into)
        });
        let file = path.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let mut values = BTreeMap::new();
        for entry in TABLE {
            // An empty variable counts as none: compose files set them all.
            let found = args
                .get(entry.name)
                .map(str::to_owned)
                .or_else(|| {
                    entry
                        .names()
                        .find_map(|name| environment(name).filter(|text| !text.trim().is_empty()))
                })
                .or_else(|| file.get(entry.name).cloned());
            if let Some(text) = found {
                values.insert(entry.name, text);
            }
        }
        Ok(Self { values })
    }

    /// Sets one by its first name, for programs and tests.
    ///
    /// # Panics
    /// When there is no setting of that name.
    #[must_use]
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        let entry = TABLE
            .iter()
            .find(|entry| entry.name == name)
            .expect("the name is in the table");
        self.values.insert(entry.name, text.into());
        self
    }

    /// The text of a setting, if it is set.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }
}

fn read_file(path: &Path) -> Result<BTreeMap<&'static str, String>, SettingsError> {
    let problem = |text: String| SettingsError { problems: vec![text] };
    let text = std::fs::read_to_string(path)
        .map_err(|error| problem(format!("{} cannot be read: {error}", path.display())))?;
    let table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| problem(format!("{} is not TOML: {}", path.display(), error.message())))?;
    let mut values = BTreeMap::new();
    let mut problems = Vec::new();
    for (key, value) in table {
        let goes_by = |name: &str| name.eq_ignore_ascii_case(&key);
        let Some(entry) = TABLE.iter().find(|entry| entry.names().any(goes_by)) else {
            problems.push(format!("{key} in {} is no setting", path.display()));
            continue;
        };
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            toml::Value::Array(items) if items.iter().all(toml::Value::is_str) => items
                .iter()
                .filter_map(toml::Value::as_str)
                .collect::<Vec<_>>()
                .join(","),
            _ => {
                problems.push(format!(
                    "{} in {} must be a text, a number, true or false, or a list of texts",
                    entry.name,
                    path.display()
                ));
                continue;
            }
        };
        values.insert(entry.name, text);
    }
    if problems.is_empty() {
        Ok(values)
    } else {
        Err(SettingsError { problems })
    }
}
