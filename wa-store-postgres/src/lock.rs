//! The locks that make gates hold: nodes first, then users, both in ascending order, then rows.
//!
//! Postgres runs transactions side by side, and under READ COMMITTED a statement does not see what another transaction is about
//! to commit. What decides whether a message may go (the status of its campaign or sequence, its enrolment, a suppression
//! that is not there yet, the hold of its device) all belongs to one user, so that one lock per user stands for all of it:
//!
//! | who | node | users | rows |
//! |---|---|---|---|
//! | `commit`, `sweep`, `expire`, `assign`, `unassign`, `complete_campaigns` | shared, of each fence | alone | |
//! | `begin`, `decline`, `settle` | shared | shared | messages by id; `begin` then lanes by device |
//! | `archive` | none | shared | its campaign, then messages by id, skipping locked ones |
//! | `write_session`, `wipe_session` | shared | shared | session values by key |
//! | `settle` that moves a sequence on | shared | alone | |
//! | `release` | shared | alone | devices |
//! | `claim` | shared | none | devices, skipping locked ones |
//! | `fence`, `leave` | the target alone, its taker shared | alone, of the target's devices | |
//! | `plan_lease` | shared | none | |
//! | `beat` | none | none | its own row |
//!
//! To ensure correctness: a transaction takes all its locks of nodes and users in one statement, and reads what it decides by in
//! later statements, whose snapshots are taken when the locks are held. What shares a user with others writes no row that it
//! has not locked, and only adds to tallies, in ascending order. `fence` and `leave` learn whose devices they take after they have
//! the node; users come after nodes there too.
//!
//! They are advisory locks of the transaction: nothing is written for them, they end with it whatever happens to it, and
//! they wait in turn. There are [`STRIPES`] of users and of nodes, because a batch may concern a thousand users and the
//! lock table is small; two users of one stripe wait for each other now and then, which harms nobody. The keys are made of the
//! name of the schema, so that stores beside each other in one database share none.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;
use wa_core::id::{Incarnation, UserId};

use crate::error::Done;
use crate::insert::query;

/// Locks of users, and locks of nodes.
const STRIPES: i64 = 256;

/// Where the locks of users begin.
const USERS: i64 = STRIPES;

/// The lock of whoever changes the schema.
const MIGRATION: i64 = 1_023;

/// Whether others may have a lock too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mode {
    Shared,
    Alone,
}

/// Takes locks in the order of the list.
pub(crate) const TAKE: &str = "
    SELECT count(CASE WHEN l.alone THEN pg_advisory_xact_lock(l.key)::text ELSE pg_advisory_xact_lock_shared(l.key)::text END)
    FROM unnest($1::bigint[], $2::boolean[]) AS l (key, alone)";

/// The keys of one schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Space(i64);

impl Space {
    pub(crate) fn of(schema: &str) -> Self {
        let digest = Sha256::digest(format!("wa-store-postgres {schema}").as_bytes());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        Self(i64::from_be_bytes(bytes) & !MIGRATION)
    }

    /// The lock of whoever changes the schema.
    pub(crate) const fn migration(self) -> i64 {
        self.0 | MIGRATION
    }

    /// The lock of the node of a name, which a session has as long as the node's process lives.
    pub(crate) fn name(self, name: &str) -> i64 {
        let digest = Sha256::digest([&self.0.to_be_bytes(), name.as_bytes()].concat());
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&digest[..8]);
        i64::from_be_bytes(bytes)
    }

    pub(crate) fn locks(self) -> Locks {
        Locks {
            space: self,
            keys: BTreeMap::new(),
        }
    }
}

/// Locks that are taken together.
#[must_use]
pub(crate) struct Locks {
    space: Space,
    keys: BTreeMap<i64, Mode>,
}

impl Locks {
    fn add(mut self, key: i64, mode: Mode) -> Self {
        let held = self.keys.entry(self.space.0 | key).or_insert(mode);
        *held = mode.max(*held);
        self
    }

    pub(crate) fn node(self, node: Incarnation, mode: Mode) -> Self {
        self.add(i64::from(node.as_bytes()[15]), mode)
    }

    pub(crate) fn users<'a>(self, users: impl IntoIterator<Item = &'a UserId>, mode: Mode) -> Self {
        users.into_iter().fold(self, |locks, user| {
            locks.add(USERS + i64::from(user.as_bytes()[15]), mode)
        })
    }

    /// Takes them, until the end of the transaction.
    pub(crate) async fn take(self, connection: &mut PgConnection) -> Done<()> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let (keys, modes): (Vec<i64>, Vec<Mode>) = self.keys.into_iter().unzip();
        let alone: Vec<bool> = modes.into_iter().map(|mode| mode == Mode::Alone).collect();
        query(TAKE).bind(keys).bind(alone).execute(connection).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_come_before_users_and_each_key_once() {
        let user = UserId::from_slice(&[7; 16]).unwrap();
        let node = Incarnation::from_slice(&[255; 16]).unwrap();
        let locks = Space::of("wa").locks().users([&user, &user], Mode::Alone);
        let locks = locks.users([&user], Mode::Shared).node(node, Mode::Shared);
        let taken: Vec<(i64, Mode)> = locks.keys.into_iter().collect();
        let base = Space::of("wa").0;
        assert_eq!(taken, [(base | 255, Mode::Shared), (base | (USERS + 7), Mode::Alone)]);
    }

    #[test]
    fn schemas_share_no_key() {
        assert_ne!(Space::of("wa").0, Space::of("wb").0);
        assert_eq!(Space::of("wa").0 & MIGRATION, 0);
    }
}
