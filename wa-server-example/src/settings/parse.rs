//! Reads single settings and remembers what is wrong with them.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use wa_core::transport::net::HostPolicy;
use wa_store_postgres::PostgresOptions;
use wa_store_sqlite::SqliteOptions;

use super::table::{Entry, TABLE};
use super::{Database, Login, PostgresDatabase, SettingsError, Source, SqliteDatabase};

/// Reads settings of a source; what cannot be used is replaced by the default and told at the end.
pub(super) struct Reader<'a> {
    source: &'a Source,
    problems: Vec<String>,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(source: &'a Source) -> Self {
        Self {
            source,
            problems: Vec::new(),
        }
    }

    pub(super) fn problem(&mut self, text: impl Into<String>) {
        self.problems.push(text.into());
    }

    pub(super) fn finish(self) -> Result<(), SettingsError> {
        if self.problems.is_empty() {
            Ok(())
        } else {
            Err(SettingsError {
                problems: self.problems,
            })
        }
    }

    fn entry(name: &str) -> &'static Entry {
        TABLE
            .iter()
            .find(|entry| entry.name == name)
            .expect("every setting that is read is in the table")
    }

    pub(super) fn optional(&self, name: &str) -> Option<String> {
        let default = Self::entry(name).default;
        self.source
            .get(name)
            .or((!default.is_empty()).then_some(default))
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    }

    pub(super) fn text(&self, name: &str) -> String {
        self.optional(name).unwrap_or_default()
    }

    /// Reads by a function; `expected` completes a sentence that begins with the name.
    pub(super) fn with<T>(&mut self, name: &str, expected: &str, read: impl Fn(&str) -> Option<T>) -> T {
        read(&self.text(name)).unwrap_or_else(|| {
            self.refuse(name, expected);
            read(Self::entry(name).default).expect("the default of every setting can be read")
        })
    }

    fn refuse(&mut self, name: &str, expected: &str) {
        let entry = Self::entry(name);
        let shown = if entry.secret {
            String::new()
        } else {
            format!(", not {:?}", self.text(name))
        };
        self.problem(format!("{name} {expected}{shown}"));
    }

    pub(super) fn parsed<T: FromStr>(&mut self, name: &str, expected: &str) -> T {
        self.with(name, expected, |text| text.parse().ok())
    }

    pub(super) fn flag(&mut self, name: &str) -> bool {
        self.with(name, "must be true or false", |text| {
            match text.to_ascii_lowercase().as_str() {
                "true" | "1" | "yes" | "on" => Some(true),
                "false" | "0" | "no" | "off" => Some(false),
                _ => None,
            }
        })
    }

    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &str,
        range: RangeInclusive<T>,
    ) -> T {
        let expected = format!("must be a whole number from {} to {}", range.start(), range.end());
        self.with(name, &expected, |text| {
            text.parse().ok().filter(|number| range.contains(number))
        })
    }

    pub(super) fn duration(&mut self, name: &str) -> Duration {
        self.with(
            name,
            "must be a number with ms, s, m, h or d, such as 90s",
            parse_duration,
        )
    }

    pub(super) fn database(&mut self, data_dir: &Path) -> Database {
        let schema = self.with(
            "DATABASE_SCHEMA",
            "must be 1 to 50 small letters, digits or _",
            |name| PostgresOptions::is_schema(name).then(|| name.to_owned()),
        );
        let connections = self.number("DATABASE_CONNECTIONS", 2..=PostgresOptions::CONNECTIONS_MAX);
        let cache_kib = self.number(
            "DATABASE_CACHE_KIB",
            SqliteOptions::CACHE_KIB_MIN..=SqliteOptions::CACHE_KIB_MAX,
        );
        let file = |path: PathBuf| Database::File(SqliteDatabase { path, cache_kib });
        let Some(uri) = self.optional("DATABASE_URL") else {
            return file(data_dir.join("wa.db"));
        };
        if uri.starts_with("postgres://") || uri.starts_with("postgresql://") {
            return Database::Postgres(PostgresDatabase {
                url: SecretString::from(uri),
                schema,
                connections,
            });
        }
        let path = uri
            .strip_prefix("sqlite://")
            .or_else(|| uri.strip_prefix("sqlite:"))
            .or_else(|| uri.strip_prefix("file:"));
        match path {
            Some(":memory:") => Database::Memory,
            Some(path) if !path.is_empty() => file(PathBuf::from(path.split('?').next().unwrap_or(path))),
            _ => {
                self.problem(
                    "DATABASE_URL must be sqlite:PATH, sqlite::memory: or postgres://USER:PASSWORD@HOST/DATABASE",
                );
                Database::Memory
            }
        }
    }

    pub(super) fn redis(&mut self, name: &str) -> Option<SecretString> {
        let text = self.optional(name)?;
        let url = Url::parse(&text).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "redis" | "rediss" | "redis+unix" | "unix")) {
            self.refuse(name, "must begin with redis:// or rediss:// and name a host");
        }
        Some(SecretString::from(text))
    }

    #[cfg(feature = "demo")]
    pub(super) fn loopback(&mut self, name: &str) -> Option<crate::web::loopback::LoopbackPorts> {
        let ports = self.optional(name)?.parse().ok();
        if ports.is_none() {
            self.refuse(name, "must be two ports, such as 40001,40002");
        }
        ports
    }

    pub(super) fn base_url(&mut self, name: &str) -> Option<Url> {
        let text = self.optional(name)?;
        let url = Url::parse(text.trim_end_matches('/'))
            .ok()
            .filter(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.query().is_none());
        if url.is_none() {
            self.refuse(name, "must begin with http:// or https:// and name a host");
        }
        url
    }

    pub(super) fn hosts(&mut self, name: &str) -> String {
        let text = self.text(name);
        if let Err(error) = HostPolicy::default().with_listed(&text) {
            self.problem(format!("{name}: {error}"));
        }
        text
    }

    pub(super) fn origins(&mut self, name: &str) -> Vec<String> {
        let text = self.text(name);
        let mut origins = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match Url::parse(part).map(|url| url.origin()) {
                Ok(origin) if origin.is_tuple() => origins.push(origin.ascii_serialization()),
                _ => self.problem(format!(
                    "{name} must hold origins such as https://app.example.com, not {part:?}"
                )),
            }
        }
        origins
    }

    pub(super) fn logins(&mut self, name: &str) -> Vec<Login> {
        let text = self.text(name);
        let mut logins = Vec::new();
        for (at, part) in text.split(',').map(str::trim).enumerate() {
            if part.is_empty() {
                continue;
            }
            let entry = part.split_once(':').and_then(|(login, password)| {
                let name = crate::access::login_name(login).ok()?;
                crate::password::check_length(password).ok()?;
                Some(Login {
                    name,
                    password: Some(SecretString::from(password)),
                })
            });
            match entry {
                Some(login) => logins.push(login),
                None => self.problem(format!(
                    "{name} entry {} must be login:password with a password of {} to {} characters",
                    at + 1,
                    crate::password::CHARS_MIN,
                    crate::password::CHARS_MAX
                )),
            }
        }
        logins
    }
}

pub(crate) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let number: u64 = text[..digits].parse().ok()?;
    match text[digits..].trim() {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => Some(Duration::from_secs(number)),
        "m" => number.checked_mul(60).map(Duration::from_secs),
        "h" => number.checked_mul(3_600).map(Duration::from_secs),
        "d" => number.checked_mul(86_400).map(Duration::from_secs),
        _ => None,
    }
}
