//! People who must not be written to.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::access::RequestScope;
use wa_core::domain::phone::PersonKey;
use wa_core::domain::suppression::{Suppression, SuppressionReason};
use wa_core::id::UserId;
use wa_core::store::{Page, PageRequest, StoreError, SuppressionStore};

use crate::SqliteStore;
use crate::error::{Done, Fail};
use crate::message_row::read_opt_phone;
use crate::row::{Columns, blob, hex_list, int, opt_blob, read_all};

/// `suppressed`: by the primary key, in the order asked.
pub(crate) const AMONG: &str = "
    SELECT s.user_id, s.person, s.phone, s.reason, s.note, s.since_at
    FROM json_each(?1) j CROSS JOIN suppressions s ON s.user_id = ?2 AND s.person = unhex(j.value) ORDER BY j.key";
/// `suppressions`: by the primary key.
pub(crate) const PAGE: &str = "
    SELECT user_id, person, phone, reason, note, since_at FROM suppressions
    WHERE user_id = ? AND person > ? ORDER BY person LIMIT ?";
/// `Suppress`: by the primary key.
pub(crate) const PUT: &str = "
    INSERT INTO suppressions (user_id, person, phone, reason, note, since_at) VALUES (?, ?, ?, ?, ?, ?)
    ON CONFLICT (user_id, person) DO UPDATE SET phone = excluded.phone, reason = excluded.reason, note = excluded.note,
        since_at = excluded.since_at";
/// `Unsuppress`: by the primary key.
pub(crate) const REMOVE: &str = "DELETE FROM suppressions WHERE user_id = ? AND person = ?";

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
pub(crate) async fn put_suppression(connection: &mut SqliteConnection, suppression: &Suppression) -> Done<()> {
    sqlx::query(PUT)
        .bind(blob(&suppression.user_id).to_vec())
        .bind(blob(&suppression.person).to_vec())
        .bind(suppression.phone.map(|phone| phone.as_e164().to_owned()))
        .bind(suppression.reason as u8)
        .bind(suppression.note.clone())
        .bind(suppression.since_at.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes a person off the list.
pub(crate) async fn remove_suppression(connection: &mut SqliteConnection, user: UserId, person: PersonKey) -> Done<()> {
    sqlx::query(REMOVE)
        .bind(blob(&user).to_vec())
        .bind(blob(&person).to_vec())
        .execute(connection)
        .await?;
    Ok(())
}

/// Which of these persons are on the list.
pub(crate) async fn suppressed_among<'a>(
    connection: &mut SqliteConnection,
    user: UserId,
    persons: impl IntoIterator<Item = &'a PersonKey>,
) -> Done<Vec<Suppression>> {
    let statement = sqlx::query(AMONG).bind(hex_list(persons)).bind(blob(&user).to_vec());
    read_all(&statement.fetch_all(connection).await?, read_suppression)
}

#[async_trait]
impl SuppressionStore for SqliteStore {
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
            let rows = sqlx::query(PAGE)
                .bind(blob(&scope.user_id).to_vec())
                .bind(opt_blob(page.after.as_ref()).unwrap_or_default().to_vec())
                .bind(int(limit as u64 + 1))
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, read_suppression)
        };
        let rows = read
            .await
            .map_err(|fail: Fail| fail.of("suppressions", "suppression"))?;
        Ok(Page::cut(rows, limit, |row: &Suppression| row.person))
    }
}
