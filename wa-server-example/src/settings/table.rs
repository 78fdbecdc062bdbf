//! The one list of settings: names, defaults and what they are for. `--help` and the README are made from it.

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Its name: that of the environment variable; the flag is the same in lower case with dashes, the key of the file in
    /// lower case. So are those of its other names.
    pub name: &'static str,
    /// Other names that are accepted, in this order after the first.
    pub aliases: &'static [&'static str],
    /// What holds when it is not set, as text that could be set; empty for nothing.
    pub default: &'static str,
    /// What it does, in one sentence.
    pub help: &'static str,
    /// Whether its value must never be shown.
    pub secret: bool,
    /// Whether it is left out of lists: nobody but a test sets it.
    pub hidden: bool,
}

const fn entry(name: &'static str, default: &'static str, help: &'static str) -> Entry {
    Entry {
        name,
        aliases: &[],
        default,
        help,
        secret: false,
        hidden: false,
    }
}

impl Entry {
    const fn or(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }

    const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }

    /// All its names, the first one first.
    pub(super) fn names(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.name).chain(self.aliases.iter().copied())
    }

    /// The flag, without the two dashes.
    #[must_use]
    pub fn flag(&self) -> String {
        flag(self.name)
    }
}

pub(super) fn flag(name: &str) -> String {
    name.to_lowercase().replace('_', "-")
}

/// Settings that are accepted because installations have them, and that nothing uses yet.
pub const NOT_YET_USED: [&str; 3] = ["WHATSAPP_CHAT_STORAGE", "WHATSAPP_AUTO_REPLY", "WHATSAPP_WEBHOOK"];

/// All settings.
pub const TABLE: &[Entry] = &[
    entry("DATA_DIR", "./data", "Folder of the database, the media and the lock that keeps a second server out."),
    entry("DATABASE_URL", "", "Database: sqlite:PATH, sqlite::memory: for one that is gone with the process, or postgres://USER:PASSWORD@HOST/DATABASE, which several nodes may share; a file wa.db in DATA_DIR when it is not set.")
        .or(&["DB_URI"])
        .secret(),
    entry("DATABASE_SCHEMA", "wa", "Schema of the tables on Postgres: small letters, digits and _."),
    entry("DATABASE_CONNECTIONS", "10", "Most connections to Postgres that this node keeps for its work; it needs three more for itself."),
    entry("DATABASE_CACHE_KIB", "65536", "Page cache of the connection that writes to SQLite, in KiB, 256 to 67108864; each of the four that read has a quarter of it. Memory grows by it while the database does."),
    entry("REDIS_URL", "", "Redis that carries live events between nodes, redis:// or rediss://; sending goes on without it.").secret(),
    entry("BIND_ADDRESS", "127.0.0.1", "Address to listen on; 0.0.0.0 for all."),
    entry("PORT", "3000", "Port to listen on; 0 for a free one.").or(&["APP_PORT"]),
    entry("PUBLIC_BASE_URL", "", "Address under which gateways and browsers reach this server, such as https://wa.example.com; makes cookies secure and callback addresses whole."),
    entry("TZ", "Asia/Kuala_Lumpur", "Time zone of new users."),
    entry("DEFAULT_REGION", "MY", "Region in which new users' numbers without a country code are read."),
    entry("APP_DEBUG", "false", "Logs at level debug instead of info."),
    entry("LOG", "", "Filter of the log in the form of tracing-subscriber, such as info,wa_core=debug.").or(&["RUST_LOG"]),
    entry("LOG_FORMAT", "text", "Form of the log: text or json."),
    entry("DASHBOARD_USERNAME", "admin", "Login of the first admin, who is created when there is no user yet."),
    entry("DASHBOARD_PASSWORD", "", "Password of the first admin; one is made and printed once when it is not set.").secret(),
    entry("APP_BASIC_AUTH", "", "Users to create when they do not exist, login:password separated by commas, for clients that use basic auth.").secret(),
    entry("REGISTRATION", "false", "Whether anybody may register as a user."),
    entry("GATEWAY_HOSTS", "", "Hosts beside those of the vendors that gateway devices may name, host or host:port separated by commas; they may be private."),
    entry("CORS_ORIGINS", "", "Origins whose pages may call the API, separated by commas; none when it is not set."),
    entry("TRUST_PROXY", "false", "Whether the last X-Forwarded-For entry is the caller's address; only behind a proxy that sets it."),
    entry("METRICS_TOKEN", "", "Token that /metrics asks for as a bearer; without it only loopback may read them.").secret(),
    entry("LEAD_WEBHOOK_PER_MINUTE", "1200", "Most calls of the lead webhook per address in a minute; 0 for no limit."),
    entry("API_PER_MINUTE", "6000", "Most requests per address in a minute, over everything; 0 for no limit."),
    entry("IMPORT_BYTES_MAX", "104857600", "Largest CSV file of an import, in bytes."),
    entry("IMPORT_ROW_BYTES_MAX", "65536", "Largest row of a CSV file, in bytes, from 1024; what an open quotation mark swallows beyond it is given back."),
    entry("CONNECTIONS_MAX", "512", "Most connections of clients at a time, WebSockets among them; more wait until one ends. Each takes a file descriptor, of which a process has 1024 on many systems (ulimit -n)."),
    entry("HEADER_TIMEOUT", "75s", "How long a connection may be without the whole header of its next request, at least 1s, before it is closed; longer than a proxy before this server keeps idle connections."),
    entry("LIVE_CONNECTIONS_MAX", "20", "Most live connections (WebSocket) of a user to one node; 0 for none."),
    entry("MEDIA_BYTES_MAX", "10485760", "Largest picture, uploaded or fetched, in bytes."),
    entry("IMAGE_COMPRESSION", "true", "Whether pictures are made smaller: at most 1200 px and 350 KB."),
    entry("FORECASTS_MAX", "2", "Most forecasts at a time; each user has one."),
    entry("FORECAST_RECIPIENTS_MAX", "150000", "Most recipients of a forecast, with what else shares its devices; 100,000 take about 300 MB of memory while it works."),
    entry("FORECAST_TIMEOUT", "60s", "How long a forecast may work before it tells what it knows by then."),
    entry("STOP_TIMEOUT", "40s", "How long a stop waits for what is in flight."),
    entry("NODE_NAME", "", "Name of this node, 1 to 100 characters, unique among running ones; that of the host when it is not set. One that is started again under its name has its devices back at once."),
    entry("PACING", "human", "Pace of all devices: human, or for demonstrations and measurements without real recipients demo or unpaced."),
    entry("HOUR_CAP", "80", "Most messages of a device within any hour, where it has no own cap."),
    entry("DAY_CAP", "800", "Most messages of a device within any 24 hours, where it has no own cap."),
    entry("COLD_DAY_CAP", "off", "Messages of a device within a day to people who never wrote to it and to whom it has not sent before, or off; others do not count for it. Practitioners begin at 15 to 30 on linked devices."),
    entry("COLD_RAMP", "5,10,20,40,80", "Caps of the days after WhatsApp had restricted an account, for messages to people who do not know it."),
    entry("WARM_UP", "off", "Caps of the first days after a device's first message: off, cautious (20,50,120,300,600) or a list such as 20,50,120; messages that people write by hand are not held up by it."),
    entry("SEND_TIMEOUT", "30s", "How long one send may take."),
    entry("IN_FLIGHT_MAX", "64", "Most sends under way per gateway host."),
    entry("RECONCILE_AFTER", "90s", "How long after an attempt its gateway is asked about it first."),
    entry("RECONCILE_EVERY", "60s", "How long lies between two questions about one attempt."),
    entry("LATE_GRACE", "10m", "How late a campaign may start without its late policy being asked."),
    entry("STEP_WAIT_MIN", "1h", "Shortest wait between two steps of a sequence, at least 1s; shorter than an hour only for demonstrations and tests."),
    entry("LEASE_FOR", "30s", "How long a node's lease lasts after its last beat."),
    entry("ERROR_RATE_PERCENT", "20", "Share of failed and unknown messages from which a campaign or device pauses itself, in percent; 0 for never."),
    entry("ERROR_RATE_WINDOW", "50", "How many of the newest settled messages the error rate looks at."),
    entry("EVENTS_KEPT_FOR", "7d", "How long events are kept."),
    entry("CHATS_KEPT_FOR", "30d", "How long chats and what was written in them are kept."),
    entry("ARCHIVE_AFTER", "90d", "How long after its end the messages of a campaign go to the archive, from 2d on; 0s for never. They are read as before, but the campaign cannot be changed or sent again."),
    entry("WHATSAPP_SESSION_KEY", "", "Key by which sessions of WhatsApp Web are encrypted in the database: 32 bytes in base64; they are kept as they are when it is not set. What rows are called, which may hold numbers of contacts, stays readable.").secret(),
    entry("WHATSAPP_WEB_VERSION", "", "Version of WhatsApp Web as which devices connect, such as 2.3000.1020304050; WhatsApp is asked for it once a day when it is not set."),
    entry("APP_OS", "Windows", "System that a linked phone shows for this client; a real one, else pair codes are refused."),
    entry("WHATSAPP_CHAT_STORAGE", "", "Accepted, not used yet: whether chats are kept."),
    entry("WHATSAPP_ACCOUNT_VALIDATION", "true", "Whether devices of WhatsApp Web check a number before the first message to it."),
    entry("WHATSAPP_TYPING_FOR", "0s", "How long devices of WhatsApp Web show that they are typing before a message; it takes a quarter of SEND_TIMEOUT at most."),
    entry("WHATSAPP_AUTO_REPLY", "", "Accepted, not used yet: text that answers messages."),
    entry("WHATSAPP_WEBHOOK", "", "Accepted, not used yet: address that events are sent to."),
    entry("WHATSAPP_WEBHOOK_SECRET", "", "Accepted, not used yet: secret that signs them.").secret(),
    #[cfg(feature = "demo")]
    entry("WHATSAPP_LOOPBACK", "", "Two ports of this machine, that for clients and that for media, at which a simulated WhatsApp is used in place of the real one; what is sent reaches nobody.").hidden(),
    entry("CLOCK_OFFSET_S", "0", "Seconds by which the wall clock of this node is wrong, for tests.").hidden(),
];

/// The table as Markdown, for documents.
#[must_use]
pub fn markdown() -> String {
    let mut out = String::from("| setting | default | meaning |\n|---|---|---|\n");
    for entry in TABLE.iter().filter(|entry| !entry.hidden) {
        let names = entry
            .names()
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(" or ");
        let default = if entry.default.is_empty() {
            String::new()
        } else {
            format!("`{}`", entry.default)
        };
        out.push_str(&format!("| {names} | {default} | {} |\n", entry.help));
    }
    out
}
