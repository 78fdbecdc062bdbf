//! Settings from flags, environment and file, in this order of precedence.

mod args;
pub(crate) mod parse;
mod source;
pub mod table;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;
use wa_core::domain::pacing::{Caps, PacingPolicy, PacingProfile, WarmUp};
use wa_core::domain::phone::Region;
use wa_core::domain::schedule::TimeZone;
use wa_core::engine::config::EngineConfig;
use wa_core::simulation::forecast::ForecastOptions;
use wa_store_sqlite::SqliteOptions;

pub use args::SettingArgs;
pub use source::Source;

pub use crate::web::WebSettings;

/// A database on Postgres.
#[derive(Clone, Debug)]
pub struct PostgresDatabase {
    /// Where it is, with the password.
    pub url: SecretString,
    /// `DATABASE_SCHEMA`
    pub schema: String,
    /// `DATABASE_CONNECTIONS`
    pub connections: u32,
}

/// A database in a SQLite file.
#[derive(Clone, Debug)]
pub struct SqliteDatabase {
    /// The file.
    pub path: PathBuf,
    /// `DATABASE_CACHE_KIB`
    pub cache_kib: u32,
}

impl SqliteDatabase {
    /// A file with a cache of the usual size.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            cache_kib: SqliteOptions::CACHE_KIB,
        }
    }
}

/// Where rows are kept.
#[derive(Clone, Debug)]
pub enum Database {
    /// A Postgres that several nodes may share.
    Postgres(PostgresDatabase),
    /// A SQLite file.
    File(SqliteDatabase),
    /// A SQLite database that is gone with the process.
    Memory,
}

/// One line of the log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Everything that is wrong with the settings, at once.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} of the settings cannot be used:\n{}", .problems.len(), .problems.join("\n"))]
pub struct SettingsError {
    /// One sentence per problem, beginning with the setting's name.
    pub problems: Vec<String>,
}

/// A login and its password.
#[derive(Clone)]
pub struct Login {
    /// The login.
    pub name: String,
    /// The password; `None` to make one.
    pub password: Option<SecretString>,
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// How the server runs. The meaning of each field is in [`table::TABLE`].
#[derive(Debug, Clone)]
pub struct Settings {
    /// `DATA_DIR`
    pub data_dir: PathBuf,
    /// `DATABASE_URL`
    pub database: Database,
    /// `REDIS_URL`
    pub redis: Option<SecretString>,
    /// `BIND_ADDRESS`
    pub bind_address: IpAddr,
    /// `PORT`
    pub port: u16,
    /// `PUBLIC_BASE_URL`, without a slash at its end.
    pub public_base_url: Option<Url>,
    /// `TZ`
    pub time_zone: TimeZone,
    /// `DEFAULT_REGION`
    pub region: Region,
    /// `LOG` and `APP_DEBUG`
    pub log: String,
    /// `LOG_FORMAT`
    pub log_format: LogFormat,
    /// `DASHBOARD_USERNAME` and `DASHBOARD_PASSWORD`
    pub first_admin: Login,
    /// `APP_BASIC_AUTH`
    pub basic_auth: Vec<Login>,
    /// `REGISTRATION`
    pub registration: bool,
    /// `GATEWAY_HOSTS`
    pub gateway_hosts: String,
    /// `CORS_ORIGINS`
    pub cors_origins: Vec<String>,
    /// `TRUST_PROXY`
    pub trust_proxy: bool,
    /// `METRICS_TOKEN`
    pub metrics_token: Option<SecretString>,
    /// `LEAD_WEBHOOK_PER_MINUTE`
    pub lead_webhook_per_minute: u32,
    /// `API_PER_MINUTE`
    pub api_per_minute: u32,
    /// `CONNECTIONS_MAX`
    pub connections_max: usize,
    /// `HEADER_TIMEOUT`
    pub header_timeout: Duration,
    /// `LIVE_CONNECTIONS_MAX`
    pub live_connections_max: usize,
    /// `IMPORT_BYTES_MAX`
    pub import_bytes_max: u64,
    /// `IMPORT_ROW_BYTES_MAX`
    pub import_row_bytes_max: usize,
    /// `MEDIA_BYTES_MAX`
    pub media_bytes_max: u64,
    /// `IMAGE_COMPRESSION`
    pub image_compression: bool,
    /// `FORECASTS_MAX`
    pub forecasts_max: usize,
    /// `FORECAST_RECIPIENTS_MAX`
    pub forecast_recipients_max: u64,
    /// `FORECAST_TIMEOUT`
    pub forecast_timeout: Duration,
    /// `STOP_TIMEOUT`
    pub stop_timeout: Duration,
    /// `CLOCK_OFFSET_S`
    pub clock_offset_s: i64,
    /// What is set of WhatsApp Web.
    pub web: WebSettings,
    /// What the engine is configured with.
    pub engine: EngineConfig,
    /// Settings that are set and that nothing uses yet.
    pub unused: Vec<&'static str>,
}

fn pacing(read: &mut parse::Reader<'_>) -> PacingPolicy {
    let profile = read.with("PACING", "must be human, demo or unpaced", |text| match text {
        "human" => Some(PacingProfile::Human),
        "demo" => Some(PacingProfile::Demo),
        "unpaced" => Some(PacingProfile::Unpaced),
        _ => None,
    });
    let mut policy = PacingPolicy::builder().profile(profile);
    let (hour, day) = (
        read.number("HOUR_CAP", 1..=Caps::HOUR_MAX_LIMIT),
        read.number("DAY_CAP", 1..=Caps::DAY_MAX_LIMIT),
    );
    let caps = Caps::default()
        .with_hour_max(hour)
        .and_then(|caps| caps.with_day_max(day));
    policy = policy.default_caps(caps.expect("both were read within the limits"));
    let expected = "must be off, cautious, or caps of the first days that do not fall, such as 20,50,120";
    let ramp = read.with("WARM_UP", expected, |text| match text {
        "off" => Some(None),
        "cautious" => Some(Some(WarmUp::cautious())),
        caps => {
            let caps: Option<Vec<u32>> = caps.split(',').map(|cap| cap.trim().parse().ok()).collect();
            WarmUp::new(caps?).ok().map(Some)
        }
    });
    if let Some(ramp) = ramp {
        policy = policy.warm_up(ramp);
    }
    let expected = "must be off, or a whole number from 1 to 10000";
    let cold = read.with("COLD_DAY_CAP", expected, |text| match text {
        "off" => Some(None),
        cap => cap
            .parse()
            .ok()
            .filter(|cap| (1..=Caps::DAY_MAX_LIMIT).contains(cap))
            .map(Some),
    });
    if let Some(cap) = cold {
        policy = policy.cold_day_cap(cap);
    }
    let expected = "must be caps of the first days that do not fall, such as 5,10,20,40,80";
    let ramp = read.with("COLD_RAMP", expected, |text| {
        let caps: Option<Vec<u32>> = text.split(',').map(|cap| cap.trim().parse().ok()).collect();
        WarmUp::new(caps?).ok()
    });
    policy = policy.cold_ramp(ramp);
    policy.build().expect("floor and percentage are the defaults")
}

impl Settings {
    /// Reads all settings of a source.
    ///
    /// # Errors
    /// [`SettingsError`] names all problems at once.
    pub fn read(source: &Source) -> Result<Self, SettingsError> {
        let mut read = parse::Reader::new(source);
        let data_dir = PathBuf::from(read.text("DATA_DIR"));
        let debug = read.flag("APP_DEBUG");
        let log = match read.optional("LOG") {
            Some(filter) => filter,
            None if debug => "debug,hyper=info,sqlx=info,reqwest=info".to_owned(),
            None => "info".to_owned(),
        };
        let host = || {
            std::fs::read_to_string("/proc/sys/kernel/hostname")
                .ok()
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .unwrap_or_else(|| "node".to_owned())
        };
        let mut engine = EngineConfig::new(read.optional("NODE_NAME").unwrap_or_else(host));
        engine.pacing = pacing(&mut read);
        engine.send_timeout = read.duration("SEND_TIMEOUT");
        engine.in_flight_max = read.number("IN_FLIGHT_MAX", 1..=10_000);
        engine.reconcile_after = read.duration("RECONCILE_AFTER");
        engine.reconcile_every = read.duration("RECONCILE_EVERY");
        engine.late_grace = read.duration("LATE_GRACE");
        engine.step_wait_min = read.duration("STEP_WAIT_MIN");
        engine.lease_for = read.duration("LEASE_FOR");
        if engine.lease_for < Duration::from_secs(2) {
            read.problem("LEASE_FOR must be at least 2s");
        }
        // The proportions of the defaults hold for shorter leases too: a beat has to fit several times.
        engine.lease_margin = engine.lease_margin.min(engine.lease_for / 6);
        engine.beat_every = engine.beat_every.min(engine.lease_for / 6);
        engine.error_rate.percent = read.number("ERROR_RATE_PERCENT", 0..=100);
        engine.error_rate.window = read.number("ERROR_RATE_WINDOW", 1..=10_000);
        engine.events_kept_for = read.duration("EVENTS_KEPT_FOR");
        engine.chats_kept_for = read.duration("CHATS_KEPT_FOR");
        engine.archive_after = read.duration("ARCHIVE_AFTER");
        let days = EngineConfig::ARCHIVE_AFTER_MIN..=EngineConfig::SPAN_MAX;
        if !engine.archive_after.is_zero() && !days.contains(&engine.archive_after) {
            read.problem("ARCHIVE_AFTER must be 0s, or 2d to 3660d");
        }

        let settings = Self {
            database: read.database(&data_dir),
            redis: read.redis("REDIS_URL"),
            data_dir,
            clock_offset_s: read.number("CLOCK_OFFSET_S", -1_000_000_000..=1_000_000_000),
            bind_address: read.parsed("BIND_ADDRESS", "must be an IP address"),
            port: read.number("PORT", 0..=65_535),
            public_base_url: read.base_url("PUBLIC_BASE_URL"),
            time_zone: read.parsed("TZ", "must be a time zone by its IANA name, such as Asia/Kuala_Lumpur"),
            region: read.parsed("DEFAULT_REGION", "must be a country code of two letters, such as MY"),
            log,
            log_format: read.with("LOG_FORMAT", "must be text or json", |text| match text {
                "text" => Some(LogFormat::Text),
                "json" => Some(LogFormat::Json),
                _ => None,
            }),
            first_admin: Login {
                name: read.text("DASHBOARD_USERNAME").trim().to_lowercase(),
                password: read.optional("DASHBOARD_PASSWORD").map(SecretString::from),
            },
            basic_auth: read.logins("APP_BASIC_AUTH"),
            registration: read.flag("REGISTRATION"),
            gateway_hosts: read.hosts("GATEWAY_HOSTS"),
            cors_origins: read.origins("CORS_ORIGINS"),
            trust_proxy: read.flag("TRUST_PROXY"),
            metrics_token: read.optional("METRICS_TOKEN").map(SecretString::from),
            lead_webhook_per_minute: read.number("LEAD_WEBHOOK_PER_MINUTE", 0..=u32::MAX),
            api_per_minute: read.number("API_PER_MINUTE", 0..=u32::MAX),
            connections_max: read.number("CONNECTIONS_MAX", 1..=1_000_000),
            header_timeout: read.duration("HEADER_TIMEOUT"),
            live_connections_max: read.number("LIVE_CONNECTIONS_MAX", 0..=100_000),
            import_bytes_max: read.number("IMPORT_BYTES_MAX", 1..=u64::MAX),
            import_row_bytes_max: read.number("IMPORT_ROW_BYTES_MAX", 1_024..=16 << 20),
            media_bytes_max: read.number("MEDIA_BYTES_MAX", 1..=1 << 30),
            image_compression: read.flag("IMAGE_COMPRESSION"),
            forecasts_max: read.number("FORECASTS_MAX", 1..=64),
            forecast_recipients_max: read.number("FORECAST_RECIPIENTS_MAX", 1..=ForecastOptions::RECIPIENTS_LIMIT),
            forecast_timeout: read.duration("FORECAST_TIMEOUT"),
            stop_timeout: read.duration("STOP_TIMEOUT"),
            web: WebSettings {
                session_key: read.optional("WHATSAPP_SESSION_KEY").map(SecretString::from),
                version: read.optional("WHATSAPP_WEB_VERSION").and_then(|text| {
                    let version = crate::web::version(&text);
                    if version.is_none() {
                        read.problem("WHATSAPP_WEB_VERSION must be three numbers, such as 2.3000.1020304050");
                    }
                    version
                }),
                system: read.text("APP_OS"),
                check_numbers: read.flag("WHATSAPP_ACCOUNT_VALIDATION"),
                typing_for: read.duration("WHATSAPP_TYPING_FOR"),
                #[cfg(feature = "demo")]
                loopback: read.loopback("WHATSAPP_LOOPBACK"),
            },
            engine,
            unused: table::NOT_YET_USED
                .into_iter()
                .filter(|name| source.get(name).is_some())
                .collect(),
        };
        if settings.header_timeout < Duration::from_secs(1) {
            read.problem("HEADER_TIMEOUT must be at least 1s");
        }
        if let Err(problem) = crate::access::login_name(&settings.first_admin.name) {
            read.problem(format!("DASHBOARD_USERNAME {problem}"));
        }
        if let Some(password) = &settings.first_admin.password {
            use secrecy::ExposeSecret;
            if let Err(problem) = crate::password::check_length(password.expose_secret()) {
                read.problem(format!("DASHBOARD_PASSWORD {problem}"));
            }
        }
        read.finish()?;
        // Only once every setting by itself is right: what is left is between two of them.
        settings.engine.check().map_err(|problem| SettingsError {
            problems: vec![problem.to_string()],
        })?;
        Ok(settings)
    }

    /// Whether other nodes may share the database.
    #[must_use]
    pub const fn is_shared(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    /// Where files of imports wait; nodes that share a data folder have one each.
    #[must_use]
    pub fn spool(&self) -> PathBuf {
        let folder = self.data_dir.join("imports");
        if !self.is_shared() {
            return folder;
        }
        let name = self.engine.node_name.bytes();
        folder.join(name.map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    /// Whether cookies may only travel over https.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.public_base_url.as_ref().is_some_and(|url| url.scheme() == "https")
    }

    /// Whether messages go at a pace that no real recipient should see.
    #[must_use]
    pub fn is_hurried(&self) -> bool {
        self.engine.pacing.profile() != PacingProfile::Human
    }
}

#[cfg(test)]
mod tests;
