//! Whom devices know.

use async_trait::async_trait;
use sqlx::sqlite::SqliteConnection;
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::warmth::Warmth;
use wa_core::id::{DeviceId, MessageId, UserId};
use wa_core::store::{StoreError, Stranger, Strangers, WarmthStore};
use wa_core::time::Timestamp;

use crate::SqliteStore;
use crate::error::{Done, Fail};
use crate::message_row::read_opt_phone;
use crate::row::{Columns, blob, hex, hex_list, json, read_all};

/// Whether the device of a message knows its person: an acquaintance, or a sent message to the number.
macro_rules! known {
    ($m:literal) => {
        concat!(
            "(EXISTS (SELECT 1 FROM acquaintances q WHERE q.device_id = ",
            $m,
            ".device_id AND q.person = ",
            $m,
            ".person) OR EXISTS (
                SELECT 1 FROM messages s INDEXED BY messages_person
                WHERE s.person = ",
            $m,
            ".person AND s.phone = ",
            $m,
            ".phone AND s.device_id = ",
            $m,
            ".device_id AND s.state = 5
            ))"
        )
    };
}

/// `warmth`: the messages by the unique index of ids, acquaintances by the primary key, what was sent by `messages_person`.
pub(crate) const WARMTH: &str = concat!(
    "SELECT j.key, ",
    known!("m"),
    " FROM json_each(?) j CROSS JOIN messages m ON m.id = unhex(j.value)"
);
/// `strangers`: a range of `messages_queue`, and of each as `warmth`.
pub(crate) const STRANGERS: &str = concat!(
    "SELECT v.id, v.phone FROM (
        SELECT m.id, m.device_id, m.phone, m.person, m.due_at FROM messages m INDEXED BY messages_queue
        WHERE m.state = 1 AND m.device_id = ?1 AND m.priority = ?2 AND m.scope_id = ?3 AND m.due_at <= ?4 AND m.user_id = ?5
        ORDER BY m.due_at, m.id LIMIT ?6
    ) v WHERE (?7 OR NOT ",
    known!("v"),
    ") ORDER BY v.due_at, v.id"
);
/// `put_off`: what is queued on a device, by `messages_queue`.
pub(crate) const PUT_OFF: &str = "
    SELECT m.id FROM messages m INDEXED BY messages_queue
    WHERE m.state = 1 AND m.device_id = ?1 AND m.user_id = ?2 AND m.due_at > ?3 AND m.reason IN (34, 37)
    ORDER BY m.id LIMIT ?4";
/// `cold_attempts`: by `attempts_device`; acquaintances by the primary key, what was sent before by `messages_person`.
pub(crate) const COLD_ATTEMPTS: &str = "
    SELECT j.key, a.attempted_at
    FROM json_each(?1) j
    CROSS JOIN attempts a INDEXED BY attempts_device ON a.device_id = unhex(j.value) AND a.attempted_at >= ?2
    CROSS JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE m.state IN (3, 4, 5, 7)
        AND NOT EXISTS (
            SELECT 1 FROM acquaintances q
            WHERE q.device_id = a.device_id AND q.person = m.person AND q.since_at < a.attempted_at
        )
        AND NOT EXISTS (
            SELECT 1 FROM messages s INDEXED BY messages_person CROSS JOIN attempts sa ON sa.id = s.attempt_id
            WHERE s.person = m.person AND s.phone = m.phone AND s.device_id = a.device_id AND s.state = 5
                AND sa.attempted_at < a.attempted_at
        )
    ORDER BY j.key, a.attempted_at";
/// `acquainted`: acquaintances by the primary key, what was sent by `messages_person`.
pub(crate) const ACQUAINTED: &str = "
    SELECT j.key FROM json_each(?1) j
    WHERE EXISTS (SELECT 1 FROM acquaintances q WHERE q.device_id = ?2 AND q.person = unhex(j.value->>0))
        OR EXISTS (
            SELECT 1 FROM messages s INDEXED BY messages_person
            WHERE s.person = unhex(j.value->>0) AND s.phone = j.value->>1 AND s.device_id = ?2 AND s.state = 5
        )
    ORDER BY j.key";
/// `Replied`: by the primary key.
pub(crate) const TOUCH: &str =
    "INSERT INTO acquaintances (device_id, person, since_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
/// `Replied`: what waits because its person was a stranger, by `messages_person`.
pub(crate) const FORWARD: &str = "
    UPDATE messages SET due_at = ?4, reason = NULL WHERE seq IN (
        SELECT m.seq FROM messages m INDEXED BY messages_person
        WHERE m.person = ?1 AND m.user_id = ?2 AND m.device_id = ?3 AND m.state = 1 AND m.due_at > ?4
            AND m.reason IN (34, 37)
    )";

/// Notes that a device and a person are in touch, and lets what waited for that go; says whether there was any.
pub(crate) async fn touch(
    connection: &mut SqliteConnection,
    (user, device): (UserId, DeviceId),
    person: PersonKey,
    at: Timestamp,
    now: Timestamp,
) -> Done<bool> {
    sqlx::query(TOUCH)
        .bind(blob(&device).to_vec())
        .bind(blob(&person).to_vec())
        .bind(at.as_millis())
        .execute(&mut *connection)
        .await?;
    let moved = sqlx::query(FORWARD)
        .bind(blob(&person).to_vec())
        .bind(blob(&user).to_vec())
        .bind(blob(&device).to_vec())
        .bind(now.as_millis())
        .execute(connection)
        .await?;
    Ok(moved.rows_affected() > 0)
}

#[async_trait]
impl WarmthStore for SqliteStore {
    async fn warmth(&self, messages: &[MessageId]) -> Result<Vec<Warmth>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(WARMTH)
                .bind(hex_list(messages))
                .fetch_all(&mut *reader)
                .await?;
            let mut answers = vec![Warmth::default(); messages.len()];
            for row in &rows {
                let mut c = Columns::of(row);
                let at: usize = c.small("place")?;
                answers[at] = Warmth::of(c.flag()?, false);
            }
            Ok(answers)
        };
        read.await.map_err(|fail: Fail| fail.of("warmth", "message"))
    }

    async fn strangers(&self, asked: &Strangers) -> Result<Vec<Stranger>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(STRANGERS)
                .bind(blob(&asked.device_id).to_vec())
                .bind(asked.scope.priority() as u8)
                .bind(asked.scope.id_bytes(&asked.user_id).to_vec())
                .bind(asked.now.as_millis())
                .bind(blob(&asked.user_id).to_vec())
                .bind(asked.limit)
                .bind(asked.known_too)
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, |c| {
                Ok(Stranger {
                    message_id: c.key("id")?,
                    phone: read_opt_phone(c)?,
                })
            })
        };
        read.await.map_err(|fail: Fail| fail.of("strangers", "message"))
    }

    async fn put_off(
        &self,
        user: UserId,
        device: DeviceId,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<MessageId>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = sqlx::query(PUT_OFF)
                .bind(blob(&device).to_vec())
                .bind(blob(&user).to_vec())
                .bind(now.as_millis())
                .bind(limit)
                .fetch_all(&mut *reader)
                .await?;
            read_all(&rows, |c| c.key("id"))
        };
        read.await.map_err(|fail: Fail| fail.of("put_off", "message"))
    }

    async fn cold_attempts(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<Vec<Timestamp>>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = sqlx::query(COLD_ATTEMPTS)
                .bind(hex_list(devices))
                .bind(since.as_millis());
            let mut lanes = vec![Vec::new(); devices.len()];
            for row in statement.fetch_all(&mut *reader).await? {
                let mut c = Columns::of(&row);
                let at: usize = c.small("place")?;
                lanes[at].push(c.at()?);
            }
            Ok(lanes)
        };
        read.await.map_err(|fail: Fail| fail.of("cold_attempts", "message"))
    }

    async fn acquainted(&self, device: DeviceId, people: &[(Phone, PersonKey)]) -> Result<Vec<PersonKey>, StoreError> {
        let list: Vec<(String, &str)> = people
            .iter()
            .map(|(phone, person)| (hex(person.as_bytes()), phone.as_e164()))
            .collect();
        let read = async {
            let mut reader = self.reader().await?;
            let statement = sqlx::query(ACQUAINTED).bind(json(&list)).bind(blob(&device).to_vec());
            let mut known = Vec::new();
            for row in statement.fetch_all(&mut *reader).await? {
                let at: usize = Columns::of(&row).small("place")?;
                known.push(people[at].1);
            }
            Ok(known)
        };
        read.await.map_err(|fail: Fail| fail.of("acquainted", "message"))
    }
}
