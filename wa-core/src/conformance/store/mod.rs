//! What every store must pass: one table of cases, whose names are sentences, and a model test.
//!
//! An author of a store writes a [`StoreFactory`] and one line:
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use wa_core::conformance::store::StoreFactory;
//! use wa_core::store::{AppStore, MemoryStore};
//!
//! struct Memory;
//!
//! #[async_trait]
//! impl StoreFactory for Memory {
//!     fn name(&self) -> &str {
//!         "memory"
//!     }
//!     async fn fresh(&self) -> Arc<dyn AppStore> {
//!         Arc::new(MemoryStore::new())
//!     }
//! }
//!
//! wa_core::store_conformance_tests!(Memory);
//! ```
//!
//! Every case becomes a test of its own. After each case all tallies are counted and every row is looked at
//! ([`Case::run`]), whatever the case was about.

#![allow(clippy::unwrap_used, reason = "a failed check of a suite is a panic")]

mod drip;
mod factory;
mod report;
mod sound;
mod stage;
#[macro_use]
mod table;
mod world;

mod access;
mod archive;
mod campaigns;
mod chats;
mod commit;
mod devices;
mod doubt;
mod events;
mod expiry;
mod imports;
mod interleaving;
mod isolation;
mod leads;
mod leads_pool;
mod leases;
mod numbers;
mod outbox_begin;
mod outbox_due;
mod outbox_insert;
mod outbox_settle;
mod paging;
mod pool;
mod receipts;
mod round_trip;
mod sequences_ending;
mod sequences_enrolling;
mod sequences_flow;
mod sequences_matching;
mod sequences_numbers;
mod sequences_rows;
mod sessions;
mod suppression;
mod sweep;
mod time;
mod warmth;

pub mod model;

pub use self::factory::StoreFactory;
pub use self::report::{Failure, Report, first_failure, run_all};
pub use self::table::{CASES, Case, run_case};
