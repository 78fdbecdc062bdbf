//! People who must not be written to.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::access::RequestScope;
use wa_core::domain::phone::PersonKey;
use wa_core::domain::suppression::{Suppression, SuppressionReason};
use wa_core::id::UserId;
use wa_core::store::{Page, PageRequest, StoreError, SuppressionStore};

use crate::PostgresStore;
use crate::connections::Line;
use crate::error::{Done, Fail};
use crate::insert::query;
use crate::message_row::read_opt_phone;
use crate::row::{Columns, int, keys, read_all, uuid};

/// `suppressed`: by the primary key, in the order asked.
pub(crate) const AMONG: &str = "
    SELECT s.user_id, s.person, s.phone, s.reason, s.note, s.since_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN suppressions s ON s.user_id = $2 AND s.person = j.value ORDER BY j.key";
/// `suppressions`: by the primary key.
pub(crate) const PAGE: &str = "
    SELECT user_id, person, phone, reason, note, since_at FROM suppressions
    WHERE user_id = $1 AND person > $2 ORDER BY person LIMIT $3";
/// `Suppress`: by the primary key.
pub(crate) const PUT: &str = "
    INSERT INTO suppressions (user_id, person, phone, reason, note, since_at) VALUES ($1, $2, $3, $4, $5, $6)
    ON CONFLICT (user_id, person) DO UPDATE SET phone = excluded.phone, reason = excluded.reason, note = excluded.note,
        since_at = excluded.since_at";
/// `Unsuppress`: by the primary key.
pub(crate) const REMOVE: &str = "DELETE FROM suppressions WHERE user_id = $1 AND person = $2";

fn read_suppression(c: &mut Columns<'_>) -> Done<Suppression> {
    Ok(Suppression {
        user_id: c.key("user_id")?,
        person: c.key("person")?,
        phone: read_opt_phone(c)?,
        reason: c.kind("reason", SuppressionReason::from_u8)?,
        note: c.text()?,
        since_at: c.at()?,
    })
}

/// Puts a person on the list, or replaces the entry.
pub(crate) async fn put_suppression(connection: &mut PgConnection, suppression: &Suppression) -> Done<()> {
    query(PUT)
        .bind(&suppression.user_id)
        .bind(&suppression.person)
        .bind(suppression.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(suppression.reason as u8)
        .bind(suppression.note.clone())
        .bind(suppression.since_at.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a person off the list.
pub(crate) async fn remove_suppression(connection: &mut PgConnection, user: UserId, person: PersonKey) -> Done<()> {
    query(REMOVE).bind(&user).bind(&person).execute(connection).await?;
    Ok(())
}

/// Which of these persons are on the list.
pub(crate) async fn suppressed_among<'a>(
    connection: &mut impl Line,
    user: UserId,
    persons: impl IntoIterator<Item = &'a PersonKey>,
) -> Done<Vec<Suppression>> {
    let statement = query(AMONG).bind(keys(persons)).bind(&user);
    read_all(&statement.fetch_all(connection).await?, read_suppression)
}

#[async_trait]
impl SuppressionStore for PostgresStore {
    async fn suppressed(&self, user: UserId, persons: &[PersonKey]) -> Result<Vec<Suppression>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            suppressed_among(&mut reader, user, persons).await
        };
        read.await.map_err(|fail: Fail| fail.of("suppressed", "suppression"))
    }

    async fn suppressions(
        &self,
        scope: &RequestScope,
        page: &PageRequest<PersonKey>,
    ) -> Result<Page<Suppression, PersonKey>, StoreError> {
        let limit = page.clamped();
        // The list is the whole user's: a scope of some devices sees none of it.
        if scope.devices.is_some() {
            return Ok(Page::cut(Vec::new(), limit, |row: &Suppression| row.person));
        }
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(PAGE)
                .bind(&scope.user_id)
                .bind(page.after.as_ref().map_or(Uuid::nil(), uuid))
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut reader)
                .await?;
            read_all(&rows, read_suppression)
        };
        let rows = read
            .await
            .map_err(|fail: Fail| fail.of("suppressions", "suppression"))?;
        Ok(Page::cut(rows, limit, |row: &Suppression| row.person))
    }
}
