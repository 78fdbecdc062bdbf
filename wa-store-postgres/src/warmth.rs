//! Whom devices know.

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use uuid::Uuid;
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::domain::warmth::Warmth;
use wa_core::id::{DeviceId, MessageId, UserId};
use wa_core::store::{StoreError, Stranger, Strangers, WarmthStore};
use wa_core::time::Timestamp;

use crate::PostgresStore;
use crate::error::{Done, Fail};
use crate::insert::query;
use crate::message_row::read_opt_phone;
use crate::row::{Columns, keys, read_all};

/// Whether the device of `m` knows its person: an acquaintance, or a sent message to the number. OFFSET makes Postgres look for each,
/// where it would else read all there are.
macro_rules! known {
    () => {
        "(EXISTS (SELECT 1 FROM acquaintances q WHERE q.device_id = m.device_id AND q.person = m.person OFFSET 0)
        OR EXISTS (
            SELECT 1 FROM messages s
            WHERE uuid_hash_extended(s.person, 0) = uuid_hash_extended(m.person, 0) AND s.person = m.person AND s.phone = m.phone AND s.device_id = m.device_id AND s.state = 5
            OFFSET 0
        ))"
    };
}

/// `warmth`: the messages by the primary key, acquaintances by the primary key, what was sent by `messages_person`.
pub(crate) const WARMTH: &str = concat!(
    "SELECT j.key, ",
    known!(),
    " FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key) JOIN messages m ON m.id = j.value"
);
/// `strangers`: a range of the primary key of `queue`, and of each as `warmth`.
pub(crate) const STRANGERS: &str = concat!(
    "SELECT m.id, m.phone FROM (
        SELECT w.message_id, w.due_at FROM queue w
        WHERE w.device_id = $1 AND w.priority = $2 AND w.scope_id = $3 AND w.due_at <= $4
        ORDER BY w.due_at, w.message_id LIMIT $6
    ) AS w JOIN messages m ON m.id = w.message_id WHERE m.user_id = $5 AND ($7 OR NOT ",
    known!(),
    ") ORDER BY w.due_at, w.message_id"
);
/// `put_off`: what is queued on a device, by the primary key of `queue`; OFFSET makes Postgres look for each message.
pub(crate) const PUT_OFF: &str = "
    SELECT m.id FROM queue w
    CROSS JOIN LATERAL (SELECT x.id, x.user_id, x.reason FROM messages x WHERE x.id = w.message_id OFFSET 0) AS m
    WHERE w.device_id = $1 AND w.due_at > $3 AND m.user_id = $2 AND m.reason IN (34, 37)
    ORDER BY m.id LIMIT $4";
/// `cold_attempts`: by `attempts_device`; acquaintances by the primary key, what was sent before by `messages_person`. OFFSET makes
/// Postgres look for each, where it would else go through all that was ever sent.
pub(crate) const COLD_ATTEMPTS: &str = "
    SELECT j.key, a.attempted_at
    FROM unnest($1::uuid[]) WITH ORDINALITY AS j (value, key)
    CROSS JOIN LATERAL (
        SELECT x.* FROM attempts x WHERE x.device_id = j.value AND x.attempted_at >= $2 OFFSET 0
    ) AS a
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.id = a.message_id AND x.attempt_id = a.id OFFSET 0
    ) AS m
    WHERE m.state IN (3, 4, 5, 7)
        AND NOT EXISTS (
            SELECT 1 FROM acquaintances q
            WHERE q.device_id = a.device_id AND q.person = m.person AND q.since_at < a.attempted_at OFFSET 0
        )
        AND NOT EXISTS (
            SELECT 1 FROM messages s JOIN attempts sa ON sa.id = s.attempt_id
            WHERE uuid_hash_extended(s.person, 0) = uuid_hash_extended(m.person, 0) AND s.person = m.person AND s.phone = m.phone AND s.device_id = a.device_id AND s.state = 5
                AND sa.attempted_at < a.attempted_at
            OFFSET 0
        )
    ORDER BY j.key, a.attempted_at";
/// `acquainted`: acquaintances by the primary key, what was sent by `messages_person`.
pub(crate) const ACQUAINTED: &str = "
    SELECT j.key FROM unnest($1::uuid[], $2::text[]) WITH ORDINALITY AS j (person, phone, key)
    WHERE EXISTS (SELECT 1 FROM acquaintances q WHERE q.device_id = $3 AND q.person = j.person OFFSET 0)
        OR EXISTS (
            SELECT 1 FROM messages s
            WHERE uuid_hash_extended(s.person, 0) = uuid_hash_extended(j.person, 0) AND s.person = j.person AND s.phone = j.phone AND s.device_id = $3 AND s.state = 5
            OFFSET 0
        )
    ORDER BY j.key";
/// `Replied`: by the primary key.
pub(crate) const TOUCH: &str =
    "INSERT INTO acquaintances (device_id, person, since_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING";

/// Notes that a device and a person are in touch.
pub(crate) async fn touch(
    connection: &mut PgConnection,
    device: DeviceId,
    person: PersonKey,
    at: Timestamp,
) -> Done<()> {
    query(TOUCH)
        .bind(&device)
        .bind(&person)
        .bind(at.as_millis())
        .execute(connection)
        .await?;
    Ok(())
}

#[async_trait]
impl WarmthStore for PostgresStore {
    async fn warmth(&self, messages: &[MessageId]) -> Result<Vec<Warmth>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(WARMTH).bind(keys(messages)).fetch_all(&mut reader).await?;
            let mut answers = vec![Warmth::default(); messages.len()];
            for row in &rows {
                let mut c = Columns::of(row);
                let at: usize = c.place()?;
                answers[at] = Warmth::of(c.flag()?, false);
            }
            Ok(answers)
        };
        read.await.map_err(|fail: Fail| fail.of("warmth", "message"))
    }

    async fn strangers(&self, asked: &Strangers) -> Result<Vec<Stranger>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let rows = query(STRANGERS)
                .bind(&asked.device_id)
                .bind(asked.scope.priority() as u8)
                .bind(Uuid::from_bytes(asked.scope.id_bytes(&asked.user_id)))
                .bind(asked.now.as_millis())
                .bind(&asked.user_id)
                .bind(asked.limit)
                .bind(asked.known_too)
                .fetch_all(&mut reader)
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
            let rows = query(PUT_OFF)
                .bind(&device)
                .bind(&user)
                .bind(now.as_millis())
                .bind(limit)
                .fetch_all(&mut reader)
                .await?;
            read_all(&rows, |c| c.key("id"))
        };
        read.await.map_err(|fail: Fail| fail.of("put_off", "message"))
    }

    async fn cold_attempts(&self, devices: &[DeviceId], since: Timestamp) -> Result<Vec<Vec<Timestamp>>, StoreError> {
        let read = async {
            let mut reader = self.reader().await?;
            let statement = query(COLD_ATTEMPTS).bind(keys(devices)).bind(since.as_millis());
            let mut lanes = vec![Vec::new(); devices.len()];
            for row in statement.fetch_all(&mut reader).await? {
                let mut c = Columns::of(&row);
                let at: usize = c.place()?;
                lanes[at].push(c.at()?);
            }
            Ok(lanes)
        };
        read.await.map_err(|fail: Fail| fail.of("cold_attempts", "message"))
    }

    async fn acquainted(&self, device: DeviceId, people: &[(Phone, PersonKey)]) -> Result<Vec<PersonKey>, StoreError> {
        let persons = keys(people.iter().map(|(_, person)| person));
        let phones: Vec<String> = people.iter().map(|(phone, _)| phone.as_e164().to_owned()).collect();
        let read = async {
            let mut reader = self.reader().await?;
            let statement = query(ACQUAINTED).bind(persons).bind(phones).bind(&device);
            let mut known = Vec::new();
            for row in statement.fetch_all(&mut reader).await? {
                let at: usize = Columns::of(&row).place()?;
                known.push(people[at].1);
            }
            Ok(known)
        };
        read.await.map_err(|fail: Fail| fail.of("acquainted", "message"))
    }
}
