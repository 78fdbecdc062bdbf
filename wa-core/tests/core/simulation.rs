//! Campaigns under faults, from seeds.
//!
//! `SIM_SEEDS=10000` runs that many, `SIM_SEED=7` replays one and prints what happened.

use wa_core::simulation::scenario::Scenario;

/// How many seeds run by default.
const SEEDS: u64 = 500;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn no_seed_breaks_an_invariant() {
    if let Some(seed) = number("SIM_SEED") {
        let scenario = Scenario::draw(seed);
        println!("{scenario:#?}");
        let report = scenario.run();
        println!("{}{report}", report.trace());
        println!("{} steps, {:?}", report.steps, report.lasted);
        assert!(report.violations.is_empty(), "{report}");
        return;
    }
    let seeds = number("SIM_SEEDS").unwrap_or(SEEDS);
    let from = number("SIM_FROM").unwrap_or(0);
    let mut failed = Vec::new();
    for seed in from..from + seeds {
        let report = Scenario::draw(seed).run();
        if !report.violations.is_empty() {
            eprintln!(
                "{report}replay: SIM_SEED={seed} cargo test -p wa-core --test core no_seed_breaks -- --nocapture"
            );
            failed.push(seed);
        }
        if failed.len() >= 10 {
            break;
        }
    }
    assert!(
        failed.is_empty(),
        "{} of {seeds} seeds broke an invariant: {failed:?}",
        failed.len()
    );
}
