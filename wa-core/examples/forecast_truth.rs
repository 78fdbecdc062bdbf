//! A forecast against what then happens: 3,000 devices, of which 100 have 40 % of 100,000 recipients, with caps, quiet hours,
//! devices offline and on hold.
//!
//! ```text
//! cargo run --release -p wa-core --features conformance --example forecast_truth
//! cargo run --release -p wa-core --features conformance --example forecast_truth -- forecast   # without the truth
//! ```

use std::time::Duration;

use wa_core::domain::campaign::Routing;
use wa_core::domain::pacing::Caps;
use wa_core::domain::schedule::QuietHours;
use wa_core::simulation::forecast::truth::{TruthPlan, TruthWorld};
use wa_core::simulation::forecast::{Forecast, ForecastOptions};
use wa_core::time::{Clock, SystemClock};

const HOUR: Duration = Duration::from_secs(3_600);

/// The largest resident size so far, in MB; 0 where the system does not tell.
fn peak_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}

fn plan() -> TruthPlan {
    TruthPlan {
        busy: 100,
        busy_per_mille: 400,
        every_idle: 31,
        caps: Caps::default().with_day_max(300).expect("300 is allowed"),
        quiet_hours: Some(
            QuietHours::new("22:00".parse().expect("a time"), "08:00".parse().expect("a time")).expect("a night"),
        ),
        routing: Routing::OwnDevice,
        begins_after: HOUR * 12,
        expires_after: HOUR * 72,
        ..TruthPlan::plain(3_000, 100_000)
    }
}

#[allow(clippy::print_stdout, reason = "an example tells people")]
fn tell(forecast: &Forecast) {
    println!(
        "ends {:?}, last sent {:?}, settled {:?}",
        forecast.end, forecast.last_sent_at, forecast.ends_at
    );
    for day in &forecast.days {
        println!(
            "{}  sent {:>6}  skipped {:>5}  failed {:>5}  devices {:>5}",
            day.date, day.sent, day.skipped, day.failed, day.devices
        );
    }
    let hours = |millis: u64| millis / 3_600_000;
    let waited = forecast.waited;
    println!(
        "hours waited, all devices together: pauses {}, cap of the hour {}, cap of the day {}, quiet hours {}, offline {}",
        hours(waited.delay_ms),
        hours(waited.hour_cap_ms),
        hours(waited.day_cap_ms),
        hours(waited.quiet_hours_ms),
        hours(waited.offline_ms)
    );
    for warning in &forecast.warnings {
        println!("warning: {}", warning.message);
    }
}

#[allow(clippy::print_stdout, reason = "an example tells people")]
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let clock = SystemClock::new();
    let plan = plan();
    let world = TruthWorld::new(&plan);
    let before = peak_mb();
    let begun = clock.monotonic();
    let forecast = world
        .forecast(&ForecastOptions::default())
        .await
        .expect("there is somebody to write to");
    let took = clock.monotonic().since(begun);
    println!("{} devices, {} recipients", plan.devices, plan.leads);
    println!(
        "forecast took {:.2} s; peak memory {} MB, of which {before} MB for the world itself",
        took.as_secs_f64(),
        peak_mb()
    );
    tell(&forecast);
    if std::env::args().nth(1).as_deref() == Some("forecast") {
        return;
    }
    let begun = clock.monotonic();
    let truth = world.live(2, HOUR * 24 * 30);
    println!(
        "truth took {:.1} s: {:?}, last sent {:?}",
        clock.monotonic().since(begun).as_secs_f64(),
        truth.status,
        truth.last_sent_at
    );
    for day in &forecast.days {
        let really = truth.days.get(&day.date).copied().unwrap_or(0);
        println!("{}  forecast {:>6}  truth {:>6}", day.date, day.sent, really);
    }
    println!("forecast {:?}", forecast.numbers);
    println!("truth    {:?}", truth.numbers);
}
