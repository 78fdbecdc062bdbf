//! Serves the loopback on two ports until it is ended: `cargo run -p wa-loopback --example serve -- 4001 4002 60150000000 2000`
//! (port for clients, port for media, number of the first person, people).
//!
//! Devices are not made here: a program that knows the seed makes them with `Loopback::seed_device`, and they are let in.

use wa_loopback::{Loopback, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [websocket_port, media_port, first_person, people] = arguments.as_slice() else {
        return Err(
            "give a port for clients, a port for media, the number of the first person, and how many people".into(),
        );
    };
    let mut options = Options::new();
    options.admit_seeded = true;
    let server = Loopback::start(options);
    let first_person: u64 = first_person.parse()?;
    for number in first_person..first_person + people.parse::<u64>()? {
        server.add_account(&number.to_string(), "");
    }
    server
        .listen_on(websocket_port.parse()?, media_port.parse()?)
        .await?
        .serve()
        .await;
    Ok(())
}
