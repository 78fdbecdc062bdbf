//! The memory store passes the suite of stores, and every deliberate flaw of it is caught.

use std::sync::Arc;

use async_trait::async_trait;
use wa_core::conformance::store::model::run_model;
use wa_core::conformance::store::{StoreFactory, first_failure, run_all};
use wa_core::store::{AppStore, Flaw, MemoryStore};

struct Memory;

#[async_trait]
impl StoreFactory for Memory {
    fn name(&self) -> &str {
        "memory"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        Arc::new(MemoryStore::new())
    }
}

/// The memory store as of a single process that holds the proof that all others are dead.
struct Exclusive;

#[async_trait]
impl StoreFactory for Exclusive {
    fn name(&self) -> &str {
        "exclusive memory"
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        Arc::new(MemoryStore::exclusive())
    }
}

struct Flawed(Flaw, String);

#[async_trait]
impl StoreFactory for Flawed {
    fn name(&self) -> &str {
        &self.1
    }

    async fn fresh(&self) -> Arc<dyn AppStore> {
        Arc::new(MemoryStore::with_flaw(self.0))
    }
}

mod memory {
    use super::Memory;

    wa_core::store_conformance_tests!(Memory);
}

#[test]
fn an_exclusive_memory_store_passes_too() {
    wa_core::conformance::transport::run(async {
        let report = run_all(&Exclusive).await;
        assert!(report.failures.is_empty(), "{report}");
    });
}

#[test]
fn every_flaw_is_caught() {
    wa_core::conformance::transport::run(async {
        let mut missed = Vec::new();
        for flaw in Flaw::ALL {
            match first_failure(&Flawed(*flaw, format!("{flaw:?}"))).await {
                Some(failure) => println!("{flaw:?} fails {}", failure.case),
                None => missed.push(flaw),
            }
        }
        assert!(missed.is_empty(), "no case fails on {missed:?}");
    });
}

#[test]
fn random_operations_catch_flaws_by_themselves() {
    for flaw in [
        Flaw::CommitIsNotAtomic,
        Flaw::TalliesMissStrays,
        Flaw::BeginForgetsAttempts,
        Flaw::HoldEatsExpiry,
        Flaw::EpochsStandStill,
        Flaw::ReEntryIsIgnored,
        Flaw::DeclineForgetsTheMark,
        Flaw::TriggerRemovalRemovesAll,
        Flaw::AdvanceIgnoresEdits,
        Flaw::CountsForgetEnded,
        Flaw::AdvanceIgnoresAfter,
        Flaw::DeletionEndsNothing,
        Flaw::RefusedChainIsNotTold,
        Flaw::AssignIgnoresLimit,
        Flaw::LeadStaysWhenSent,
        Flaw::ArchiveIsNotRead,
        Flaw::ArchiveRestartsWarmUp,
        Flaw::ArchivedCampaignGoesOn,
    ] {
        let factory = Flawed(flaw, format!("{flaw:?}"));
        let passes = |seed| std::panic::catch_unwind(|| run_model(&factory, seed)).is_ok();
        assert!(!(1..=60).all(passes), "{flaw:?} agrees with the model");
    }
}
