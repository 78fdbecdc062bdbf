//! The log: to standard error, for people or machines. Nothing that is logged holds bodies, tokens or whole numbers, because
//! the types that carry them do not show them.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::settings::{LogFormat, Settings};

/// A subscriber that writes as the settings say.
pub fn subscriber<W>(settings: &Settings, writer: W) -> Box<dyn tracing::Subscriber + Send + Sync>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let format = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    match settings.log_format {
        LogFormat::Text => Box::new(format.finish()),
        LogFormat::Json => Box::new(format.json().flatten_event(true).finish()),
    }
}

/// Writes the log to standard error from now on, unless the program has another log already.
pub fn start(settings: &Settings) {
    let _ = tracing::subscriber::set_global_default(subscriber(settings, std::io::stderr));
}
