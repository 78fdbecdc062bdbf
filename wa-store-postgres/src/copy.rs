//! Pages of new messages and attempts as COPY takes them, in its binary format: a page goes into the log as a whole and not row by row,
//! and nothing is planned for it.

use sqlx::postgres::PgConnection;
use wa_core::domain::message::Message;
use wa_core::domain::phone::Phone;
use wa_core::store::BeginItem;

use crate::error::Done;
use crate::message_row::kept_ours;
use crate::row::{Key, custom_json, opt_json};

/// How many rows are copied rather than inserted: each COPY asks the server twice, which few rows do not pay for.
pub(crate) const COPY_MIN: usize = 32;

/// `InsertMessages`: the rows of which nothing is known yet but that they wait.
const MESSAGES: &str = "
    COPY messages (id, user_id, scope_id, key, person, due_at, expires_at, created_at, round, scope_kind, priority, from_pool,
        override_suppression, steps_version, device_id, lead_id, enrolment_id, step_id, state, phone, name, custom, content, delay)
    FROM STDIN (FORMAT binary)";
const MESSAGE_COLUMNS: i16 = 24;
/// `InsertMessages`: their places in the queue.
const QUEUE: &str = "
    COPY queue (device_id, scope_id, message_id, due_at, expires_at, priority, from_pool) FROM STDIN (FORMAT binary)";
const QUEUE_COLUMNS: i16 = 7;
/// `begin`: attempts.
const ATTEMPTS: &str = "
    COPY attempts (id, message_id, device_id, epoch, attempted_at, transport_message_id, greeting, text) FROM STDIN (FORMAT binary)";
const ATTEMPT_COLUMNS: i16 = 8;

/// What a file in the binary format begins with: its signature, no flags and no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// What it ends with: a row of -1 columns.
const TRAILER: i16 = -1;
/// The length of NULL.
const NULL: i32 = -1;

/// Rows in the binary format.
struct Rows {
    bytes: Vec<u8>,
    columns: i16,
}

impl Rows {
    fn new(columns: i16) -> Self {
        let bytes = HEADER.to_vec();
        Self { bytes, columns }
    }

    /// Begins a row.
    fn row(&mut self) -> &mut Self {
        self.bytes.extend(self.columns.to_be_bytes());
        self
    }

    /// Adds the next column; its bytes are those of its type, the first of a number first.
    fn value(&mut self, bytes: &[u8]) -> &mut Self {
        let length = i32::try_from(bytes.len()).unwrap_or(i32::MAX);
        self.bytes.extend(length.to_be_bytes());
        self.bytes.extend(bytes);
        self
    }

    fn opt(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.value(bytes),
            None => {
                self.bytes.extend(NULL.to_be_bytes());
                self
            }
        }
    }

    fn key(&mut self, key: &impl Key) -> &mut Self {
        self.value(key.bytes())
    }

    fn opt_key<K: Key>(&mut self, key: Option<&K>) -> &mut Self {
        self.opt(key.map(|key| key.bytes().as_slice()))
    }

    fn bigint(&mut self, number: i64) -> &mut Self {
        self.value(&number.to_be_bytes())
    }

    fn smallint(&mut self, number: u8) -> &mut Self {
        self.value(&i16::from(number).to_be_bytes())
    }

    fn flag(&mut self, flag: bool) -> &mut Self {
        self.value(&[u8::from(flag)])
    }

    fn opt_text(&mut self, text: Option<&str>) -> &mut Self {
        self.opt(text.map(str::as_bytes))
    }

    async fn copy(mut self, connection: &mut PgConnection, sql: &str) -> Done<()> {
        self.bytes.extend(TRAILER.to_be_bytes());
        let mut copy = connection.copy_in_raw(sql).await?;
        if let Err(error) = copy.send(self.bytes).await {
            // The error of the connection tells more than that of the attempt to end the copy.
            let _ = copy.abort("the rows cannot be sent").await;
            return Err(error.into());
        }
        copy.finish().await?;
        Ok(())
    }
}

fn add_message(rows: &mut Rows, m: &Message) {
    let flow = m.flow.as_ref();
    let (phone, custom) = (m.phone, custom_json(&m.custom));
    let (content, delay) = (opt_json(m.content.as_ref()), opt_json(m.delay.as_ref()));
    rows.row()
        .key(&m.id)
        .key(&m.user_id)
        .value(&m.scope.id_bytes(&m.user_id))
        .key(&m.key)
        .key(&m.person)
        .bigint(m.due_at.as_millis())
        .bigint(m.expires_at.as_millis())
        .bigint(m.created_at.as_millis())
        .value(&i32::from(m.round).to_be_bytes())
        .smallint(m.scope.kind())
        .smallint(m.scope.priority().as_u8())
        .flag(m.from_pool)
        .flag(m.override_suppression)
        .opt(
            flow.map(|flow| flow.steps_version.to_be_bytes())
                .as_ref()
                .map(<[u8; 4]>::as_slice),
        )
        .opt_key(m.device_id.as_ref())
        .opt_key(m.lead_id.as_ref())
        .opt_key(flow.map(|flow| &flow.enrolment_id))
        .opt_key(flow.map(|flow| &flow.step_id))
        .smallint(m.state as u8)
        .opt_text(phone.as_ref().map(Phone::as_e164))
        .opt_text(Some(&m.name))
        .opt_text(custom.as_deref())
        .opt_text(content.as_deref())
        .opt_text(delay.as_deref());
}

fn add_place(rows: &mut Rows, m: &Message) {
    rows.row()
        .value(m.device_id.map_or([0; 16], |device| *device.as_bytes()).as_slice())
        .value(&m.scope.id_bytes(&m.user_id))
        .key(&m.id)
        .bigint(m.due_at.as_millis())
        .bigint(m.expires_at.as_millis())
        .smallint(m.scope.priority().as_u8())
        .flag(m.from_pool);
}

/// Adds queued messages with their places in the queue.
pub(crate) async fn copy_messages(connection: &mut PgConnection, messages: &[Message]) -> Done<()> {
    let (mut rows, mut places) = (Rows::new(MESSAGE_COLUMNS), Rows::new(QUEUE_COLUMNS));
    for message in messages {
        add_message(&mut rows, message);
        add_place(&mut places, message);
    }
    rows.copy(connection, MESSAGES).await?;
    places.copy(connection, QUEUE).await
}

/// Adds the first attempts of messages.
pub(crate) async fn copy_attempts(connection: &mut PgConnection, items: &[&BeginItem]) -> Done<()> {
    let mut rows = Rows::new(ATTEMPT_COLUMNS);
    for item in items {
        let ours = kept_ours(item.attempt_id, &item.transport_message_id);
        rows.row()
            .key(&item.attempt_id)
            .key(&item.message_id)
            .key(&item.device_id)
            .bigint(item.epoch.0)
            .bigint(item.attempted_at.as_millis())
            .opt_text(ours.as_deref())
            .opt_text(item.greeting.as_deref())
            .opt_text(Some(&item.text));
    }
    rows.copy(connection, ATTEMPTS).await
}
