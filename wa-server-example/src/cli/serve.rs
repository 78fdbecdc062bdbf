//! `serve`: runs until it is told to stop.

use secrecy::ExposeSecret;

use super::{Failure, say};
use crate::assemble::{Ports, Server};
use crate::settings::Settings;

pub(super) async fn serve(settings: Settings) -> Result<(), Failure> {
    if settings.is_hurried() {
        tracing::warn!("PACING is not human: never let this server write to real recipients");
    }
    #[cfg(feature = "demo")]
    if settings.web.loopback.is_some() {
        tracing::warn!(
            "WHATSAPP_LOOPBACK is set: devices of WhatsApp Web are connected to a simulated one on this machine"
        );
    }
    let ports = Ports::open(&settings).await?;
    let public = settings.public_base_url.clone();
    let server = Server::start(settings, ports).await?;
    let base = public.map_or_else(
        || format!("http://{}", server.address()),
        |url| url.as_str().trim_end_matches('/').to_owned(),
    );
    say(&format!(
        "Listening on http://{}\nAPI: {base}/api/docs",
        server.address()
    ));
    match server.first_admin() {
        Some(first) => {
            let password = match &first.generated {
                Some(password) => format!("password {} (shown only now)", password.expose_secret()),
                None => "the password of DASHBOARD_PASSWORD".to_owned(),
            };
            say(&format!(
                "The first admin was created: log in as {} with {password}",
                first.login
            ));
        }
        None => say(&format!(
            "Log in: POST {base}/api/login with {{\"login\", \"password\"}}"
        )),
    }
    signal().await?;
    say("Stopping: letting what is in flight finish");
    server.stop().await;
    Ok(())
}

/// Waits for the signals by which systems and people stop a program.
async fn signal() -> Result<(), std::io::Error> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut term = signal(SignalKind::terminate())?;
        tokio::select! {
            done = tokio::signal::ctrl_c() => done,
            _ = term.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
