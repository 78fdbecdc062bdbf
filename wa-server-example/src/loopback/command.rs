//! A loopback gateway as a process of its own.

use std::path::PathBuf;

use super::gateway::LoopbackGateway;
use super::script::{GatewayDevice, GatewayScript, Latency, Vendor};

/// Runs a gateway on 127.0.0.1 that behaves like a vendor's, for trials and tests.
#[derive(Debug, Clone, clap::Args)]
pub struct GatewayArgs {
    /// Whose interface it has: wablas or whacenter.
    #[arg(long, default_value = "wablas", value_parser = vendor)]
    vendor: Vendor,
    /// The port to listen on; 0 for a free one.
    #[arg(long = "gateway-port", default_value_t = 0)]
    port: u16,
    /// A device that it knows, by its credential; may be given several times.
    #[arg(long = "device")]
    devices: Vec<String>,
    /// Where everything that is drawn comes from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A script as JSON instead of the options above.
    #[arg(long)]
    script: Option<PathBuf>,
}

fn vendor(text: &str) -> Result<Vendor, String> {
    match text {
        "wablas" => Ok(Vendor::Wablas),
        "whacenter" => Ok(Vendor::Whacenter),
        _ => Err("must be wablas or whacenter".to_owned()),
    }
}

impl GatewayArgs {
    /// Serves until the process is ended; `announce` gets the base URL.
    ///
    /// # Errors
    /// The script cannot be read, or the port cannot be had.
    pub async fn run(self, announce: impl FnOnce(&str)) -> std::io::Result<()> {
        let script = match &self.script {
            Some(path) => {
                let text = tokio::fs::read(path).await?;
                serde_json::from_slice(&text).map_err(std::io::Error::other)?
            }
            None => self.plain_script(),
        };
        let gateway = LoopbackGateway::start_at(script, self.port).await?;
        announce(&gateway.base_url());
        gateway.run().await;
        Ok(())
    }

    fn plain_script(&self) -> GatewayScript {
        let devices = self.devices.iter().enumerate().map(|(place, credential)| {
            GatewayDevice::new(credential, format!("LOOP{place:02}"), format!("60190000{place:03}"))
        });
        GatewayScript::new(self.vendor, self.seed)
            .latency(Latency::between(5, 100))
            .devices(devices)
    }
}
