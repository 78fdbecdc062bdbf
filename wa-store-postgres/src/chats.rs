//! Chats and their messages.

use std::collections::{BTreeSet, HashMap};
use std::sync::LazyLock;

use async_trait::async_trait;
use sqlx::postgres::PgConnection;
use wa_core::domain::access::RequestScope;
use wa_core::domain::chat::{Chat, ChatAuthor, ChatKind, ChatMessage, ChatMessagePlace, ChatPlace, ChatWriter};
use wa_core::domain::phone::{PersonKey, Phone};
use wa_core::id::{AttemptId, ChatId, DeviceId, UserId};
use wa_core::store::{
    ChatAddition, ChatPage, ChatStore, ChatTail, NewChatMessage, Page, PageRequest, StoreError, WriteClass,
};
use wa_core::time::Timestamp;
use wa_core::transport::TransportMessageId;

use crate::commit::Commit;
use crate::error::{Done, Fail};
use crate::insert::{insert, query, run_over};
use crate::message_row::{message, read_message};
use crate::row::{Columns, device_list, int, keys, read_all};
use crate::{Op, PostgresStore};

/// The columns of a chat `c`.
macro_rules! chat {
    ($from:literal) => {
        concat!(
            "SELECT c.id, c.user_id, c.device_id, c.person, c.phone, c.name, c.unread, c.last_at ",
            $from
        )
    };
}

/// The columns of a message `m` that a chat keeps itself.
macro_rules! kept {
    ($from:literal) => {
        concat!(
            "SELECT m.id, m.chat_id, m.author, m.kind, m.text, m.at, m.provider_id ",
            $from
        )
    };
}

/// `chat`, `chat_messages`: by the primary key.
pub(crate) const VISIBLE: &str = chat!(
    "FROM chats c WHERE c.id = $1 AND c.user_id = $2 AND NOT c.gone
    AND ($3::uuid[] IS NULL OR c.device_id = ANY ($3))"
);
/// `chats`: the device, by the primary key.
pub(crate) const DEVICE: &str = "
    SELECT 1 FROM devices WHERE id = $1 AND user_id = $2 AND deleted_at IS NULL
        AND ($3::uuid[] IS NULL OR id = ANY ($3))";
/// `chats`, by `chats_device`.
pub(crate) const PAGE: &str = chat!(
    "FROM chats c WHERE c.device_id = $1 AND (c.last_at, c.id) < ($2, $3)
    ORDER BY c.last_at DESC, c.id DESC LIMIT $4"
);
/// `chat_messages`: a range of the primary key.
pub(crate) const KEPT_BEFORE: &str = kept!(
    "FROM chat_messages m WHERE m.chat_id = $1 AND (m.at, m.id) < ($2, $3) ORDER BY m.at DESC, m.id DESC LIMIT $4"
);
/// `chat_messages`: a range of the primary key.
pub(crate) const KEPT_AFTER: &str =
    kept!("FROM chat_messages m WHERE m.chat_id = $1 AND (m.at, m.id) > ($2, $3) ORDER BY m.at, m.id LIMIT $4");
/// `chat`, `chats`: the newest that each chat keeps, by the primary key.
pub(crate) const KEPT_LAST: &str = kept!(
    "FROM unnest($1::uuid[]) AS j (id) CROSS JOIN LATERAL (
        SELECT n.* FROM chat_messages n WHERE n.chat_id = j.id ORDER BY n.at DESC, n.id DESC LIMIT 1
    ) AS m"
);
/// `chat_messages`: what the engine sent to a person from a device, by `messages_person`.
pub(crate) const SENT_BEFORE: &str = message!(
    "FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id
    WHERE uuid_hash_extended(m.person, 0) = uuid_hash_extended($1, 0) AND m.person = $1 AND m.user_id = $2 AND m.device_id = $3
        AND coalesce(m.phone, '') <> ''
        AND (m.state BETWEEN 3 AND 7 AND a.id IS NOT NULL OR m.state < 3 AND m.scope_kind > 2)
        AND (CASE WHEN m.state < 3 THEN m.created_at ELSE a.attempted_at END, m.id) < ($4, $5)
    ORDER BY CASE WHEN m.state < 3 THEN m.created_at ELSE a.attempted_at END DESC, m.id DESC LIMIT $6"
);
/// `chat_messages`: what the engine sent to a person from a device, by `messages_person`.
pub(crate) const SENT_AFTER: &str = message!(
    "FROM messages m LEFT JOIN attempts a ON a.id = m.attempt_id
    WHERE uuid_hash_extended(m.person, 0) = uuid_hash_extended($1, 0) AND m.person = $1 AND m.user_id = $2 AND m.device_id = $3
        AND coalesce(m.phone, '') <> ''
        AND (m.state BETWEEN 3 AND 7 AND a.id IS NOT NULL OR m.state < 3 AND m.scope_kind > 2)
        AND (CASE WHEN m.state < 3 THEN m.created_at ELSE a.attempted_at END, m.id) > ($4, $5)
    ORDER BY CASE WHEN m.state < 3 THEN m.created_at ELSE a.attempted_at END, m.id LIMIT $6"
);
/// `chat`, `chats`: the newest that the engine sent in each chat, by `messages_person`.
pub(crate) const SENT_LAST: &str = message!(
    "FROM unnest($1::uuid[]) AS j (id) JOIN chats c ON c.id = j.id CROSS JOIN LATERAL (
        SELECT n.id FROM messages n LEFT JOIN attempts b ON b.id = n.attempt_id
        WHERE uuid_hash_extended(n.person, 0) = uuid_hash_extended(c.person, 0) AND n.person = c.person AND n.user_id = c.user_id
            AND n.device_id = c.device_id AND coalesce(n.phone, '') <> ''
            AND (n.state BETWEEN 3 AND 7 AND b.id IS NOT NULL OR n.state < 3 AND n.scope_kind > 2)
        ORDER BY CASE WHEN n.state < 3 THEN n.created_at ELSE b.attempted_at END DESC, n.id DESC LIMIT 1
    ) AS x
    JOIN messages m ON m.id = x.id
    LEFT JOIN attempts a ON a.id = m.attempt_id"
);
/// `AddToChat`: whether the device was deleted, by the primary key.
pub(crate) const OWNED: &str = "SELECT deleted_at IS NOT NULL FROM devices WHERE id = $1 AND user_id = $2";
/// `AddToChat`, by the primary key.
pub(crate) const ONE: &str = "SELECT user_id, device_id, person, name, unread, last_at FROM chats WHERE id = $1";
/// `AddToChat`: which the device has, by `chat_messages_provider`.
pub(crate) const KNOWN: &str =
    "SELECT m.provider_id FROM chat_messages m WHERE m.device_id = $2 AND m.provider_id = ANY ($1::text[])";
/// `AddToChat`: which the engine sent, by `attempts_ours`.
pub(crate) const OURS: &str = "
    SELECT a.transport_message_id FROM attempts a JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE a.device_id = $2 AND a.transport_message_id = ANY ($1::text[]) AND a.transport_message_id IS NOT NULL";
/// `AddToChat`: which the engine sent under the ids of their attempts, by the primary keys.
pub(crate) const OUR_ATTEMPTS: &str = "
    SELECT a.id FROM attempts a JOIN messages m ON m.id = a.message_id AND m.attempt_id = a.id
    WHERE a.id = ANY ($1::uuid[]) AND a.device_id = $2 AND a.transport_message_id IS NULL";
/// `AddToChat`, by the primary key.
pub(crate) const PUT: &str = "
    INSERT INTO chats (id, user_id, device_id, person, phone, name, unread, last_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
    ON CONFLICT (id) DO UPDATE SET phone = excluded.phone, name = excluded.name, unread = excluded.unread,
        last_at = excluded.last_at";
/// `AddToChat`.
static INSERT: LazyLock<String> = LazyLock::new(|| {
    insert(
        "INSERT INTO chat_messages (chat_id, at, id, device_id, provider_id, author, kind, text)",
        "uiuutiit",
        "",
    )
});
/// `ReadChat`, by the primary key.
pub(crate) const READ: &str = "UPDATE chats SET unread = 0 WHERE id = $1 AND user_id = $2 AND NOT gone";
/// `DeleteDevice`, by `chats_device`.
pub(crate) const LEAVE: &str = "UPDATE chats SET gone = true WHERE device_id = $1";
/// `ErasePerson`, by `chats_person` and the primary key.
pub(crate) const ERASE_MESSAGES: &str =
    "DELETE FROM chat_messages WHERE chat_id IN (SELECT id FROM chats WHERE user_id = $1 AND person = $2)";
/// `ErasePerson`, by `chats_person`.
pub(crate) const ERASE: &str = "DELETE FROM chats WHERE user_id = $1 AND person = $2";
/// `sweep_chats`, by `chat_messages_age`; what another node sweeps just now is left to it.
pub(crate) const SWEEP_OLD: &str = "
    WITH old AS MATERIALIZED (
        SELECT chat_id, at, id FROM chat_messages WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED
    )
    DELETE FROM chat_messages m USING old o WHERE m.chat_id = o.chat_id AND m.at = o.at AND m.id = o.id";
/// `sweep_chats`, by `chats_gone` and the primary key.
pub(crate) const SWEEP_GONE: &str = "
    WITH old AS MATERIALIZED (
        SELECT n.chat_id, n.at, n.id FROM chats c JOIN chat_messages n ON n.chat_id = c.id
        WHERE c.gone LIMIT $1 FOR UPDATE OF n SKIP LOCKED
    )
    DELETE FROM chat_messages m USING old o WHERE m.chat_id = o.chat_id AND m.at = o.at AND m.id = o.id";
/// `sweep_chats`, by `chats_age`.
pub(crate) const SWEEP_EMPTY: &str = "
    WITH old AS MATERIALIZED (
        SELECT c.id FROM chats c
        WHERE c.last_at < $1 AND NOT EXISTS (SELECT 1 FROM chat_messages n WHERE n.chat_id = c.id)
        ORDER BY c.last_at LIMIT $2 FOR UPDATE OF c SKIP LOCKED
    )
    DELETE FROM chats c USING old o WHERE c.id = o.id";
/// `sweep_chats`, by `chats_gone`.
pub(crate) const SWEEP_LEFT: &str = "
    WITH old AS MATERIALIZED (
        SELECT c.id FROM chats c
        WHERE c.gone AND NOT EXISTS (SELECT 1 FROM chat_messages n WHERE n.chat_id = c.id)
        LIMIT $1 FOR UPDATE OF c SKIP LOCKED
    )
    DELETE FROM chats c USING old o WHERE c.id = o.id";

fn read_chat(c: &mut Columns<'_>) -> Done<Chat> {
    Ok(Chat {
        id: c.key("id")?,
        user_id: c.key("user_id")?,
        device_id: c.key("device_id")?,
        person: c.key("person")?,
        phone: Phone::from_e164(c.str()?).map_err(|_| Fail::Unreadable("phone"))?,
        name: c.opt_text()?,
        unread: c.small("unread")?,
        last_at: c.at()?,
        last: None,
    })
}

fn read_kept(c: &mut Columns<'_>) -> Done<ChatMessage> {
    Ok(ChatMessage {
        id: c.key("id")?,
        chat_id: c.key("chat_id")?,
        author: ChatAuthor::Writer(c.kind("author", ChatWriter::from_u8)?),
        kind: c.kind("kind", ChatKind::from_u8)?,
        text: c.text()?,
        at: c.at()?,
        provider_id: Some(TransportMessageId::new(c.text()?).ok_or(Fail::Unreadable("provider_id"))?),
    })
}

/// Which of the messages are new to the device, each vendor's id once.
async fn new_ones<'a>(commit: &mut Commit<'_>, addition: &'a ChatAddition) -> Done<Vec<&'a NewChatMessage>> {
    let messages = addition.distinct();
    if messages.is_empty() {
        return Ok(messages);
    }
    let providers: Vec<String> = messages
        .iter()
        .map(|message| message.provider_id.as_str().to_owned())
        .collect();
    // Only what the own phone is said to have written may be the engine's.
    let by_phone = messages.iter().filter(|message| message.by == ChatWriter::OwnPhone);
    let ours: Vec<String> = by_phone
        .map(|message| message.provider_id.as_str().to_owned())
        .collect();
    let attempts: Vec<AttemptId> = ours.iter().filter_map(|id| id.parse().ok()).collect();
    let device = &addition.device_id;
    let rows = query(KNOWN).bind(providers).bind(device);
    let known = read_all(&rows.fetch_all(&mut *commit.connection).await?, |c| c.text())?;
    let mut sent = Vec::new();
    if !ours.is_empty() {
        let rows = query(OURS).bind(ours).bind(device);
        sent = read_all(&rows.fetch_all(&mut *commit.connection).await?, |c| c.text())?;
    }
    if !attempts.is_empty() {
        let rows = query(OUR_ATTEMPTS).bind(keys(&attempts)).bind(device);
        let rows = rows.fetch_all(&mut *commit.connection).await?;
        let ids: Vec<AttemptId> = read_all(&rows, |c| c.key("id"))?;
        sent.extend(ids.into_iter().map(|id| id.to_string()));
    }
    let known: BTreeSet<String> = known.into_iter().collect();
    let sent: BTreeSet<String> = sent.into_iter().collect();
    let is_new = |message: &&NewChatMessage| {
        let id = message.provider_id.as_str();
        !(known.contains(id) || message.by == ChatWriter::OwnPhone && sent.contains(id))
    };
    Ok(messages.into_iter().filter(is_new).collect())
}

/// Adds messages to a chat.
pub(crate) async fn add_to_chat(commit: &mut Commit<'_>, addition: &ChatAddition) -> Done<()> {
    let owned = query(OWNED)
        .bind(&addition.device_id)
        .bind(&addition.user_id)
        .fetch_optional(&mut *commit.connection)
        .await?;
    let deleted = owned.map(|row| Columns::of(&row).flag()).transpose()?;
    if deleted.ok_or(Fail::not_found("device"))? {
        return Ok(());
    }
    let row = query(ONE)
        .bind(&addition.chat_id)
        .fetch_optional(&mut *commit.connection)
        .await?;
    let (mut name, mut tail) = (None, ChatTail::default());
    if let Some(row) = row {
        let mut c = Columns::of(&row);
        let of = (c.key("user_id")?, c.key("device_id")?, c.key("person")?);
        if of != (addition.user_id, addition.device_id, addition.person) {
            return Err(Fail::conflict("chat"));
        }
        name = c.opt_text()?;
        tail.unread = c.small("unread")?;
        tail.last_at = Some(c.at()?);
    }
    let added = new_ones(commit, addition).await?;
    if added.is_empty() && addition.opened_at.is_none() {
        return Ok(());
    }
    let tail = tail.after(&added, addition.opened_at);
    let Some(last_at) = tail.last_at else { return Ok(()) };
    query(PUT)
        .bind(&addition.chat_id)
        .bind(&addition.user_id)
        .bind(&addition.device_id)
        .bind(&addition.person)
        .bind(addition.phone.as_e164().to_owned())
        .bind(addition.name.clone().or(name))
        .bind(tail.unread)
        .bind(last_at.as_millis())
        .execute(&mut *commit.connection)
        .await?;
    run_over(commit.connection, INSERT.as_str(), &added, |row, message| {
        row.bind(&addition.chat_id)
            .bind(message.at.as_millis())
            .bind(&message.id)
            .bind(&addition.device_id)
            .bind(message.provider_id.as_str().to_owned())
            .bind(message.by as u8)
            .bind(message.kind as u8)
            .bind(message.text.clone())
    })
    .await?;
    commit.done.chat_messages += added.len() as u64;
    Ok(())
}

/// Marks a chat read.
pub(crate) async fn mark_read(connection: &mut PgConnection, user: UserId, id: ChatId) -> Done<()> {
    let statement = query(READ).bind(&id).bind(&user);
    let found = statement.execute(connection).await?.rows_affected() > 0;
    if found { Ok(()) } else { Err(Fail::not_found("chat")) }
}

/// Lets the chats of a device that is deleted be seen no more.
pub(crate) async fn leave_chats(connection: &mut PgConnection, device: DeviceId) -> Done<()> {
    query(LEAVE).bind(&device).execute(connection).await?;
    Ok(())
}

/// Removes the chats with a person.
pub(crate) async fn erase_chats(connection: &mut PgConnection, user: UserId, person: PersonKey) -> Done<()> {
    for sql in [ERASE_MESSAGES, ERASE] {
        query(sql).bind(&user).bind(&person).execute(&mut *connection).await?;
    }
    Ok(())
}

async fn sweep(connection: &mut PgConnection, before: Timestamp, limit: u32) -> Done<u64> {
    let limit = u64::from(limit);
    let mut swept = 0;
    for (sql, before) in [
        (SWEEP_OLD, Some(before)),
        (SWEEP_GONE, None),
        (SWEEP_EMPTY, Some(before)),
        (SWEEP_LEFT, None),
    ] {
        let mut statement = query(sql);
        if let Some(before) = before {
            statement = statement.bind(before.as_millis());
        }
        let done = statement.bind(int(limit - swept)).execute(&mut *connection).await?;
        swept += done.rows_affected();
    }
    Ok(swept)
}

impl PostgresStore {
    async fn find_chat(&self, scope: &RequestScope, id: ChatId) -> Done<Chat> {
        let statement = query(VISIBLE).bind(&id).bind(&scope.user_id).bind(device_list(scope));
        let found = self.read_rows(statement, read_chat).await?.into_iter().next();
        found.ok_or(Fail::not_found("chat"))
    }

    /// The chats of one device, each with its newest message.
    async fn with_last(&self, mut chats: Vec<Chat>) -> Done<Vec<Chat>> {
        let list = keys(chats.iter().map(|chat| &chat.id));
        let kept = self.read_rows(query(KEPT_LAST).bind(list.clone()), read_kept).await?;
        let mut kept: HashMap<ChatId, ChatMessage> = kept.into_iter().map(|one| (one.chat_id, one)).collect();
        let sent = self.read_rows(query(SENT_LAST).bind(list), read_message).await?;
        let sent: HashMap<PersonKey, _> = sent.into_iter().map(|one| (one.person, one)).collect();
        for chat in &mut chats {
            let sent = sent
                .get(&chat.person)
                .and_then(|one| ChatMessage::of_outbox(chat.id, one));
            chat.last = kept
                .remove(&chat.id)
                .into_iter()
                .chain(sent)
                .max_by_key(ChatMessage::place);
        }
        Ok(chats)
    }

    async fn page_of_chats(
        &self,
        scope: &RequestScope,
        device: DeviceId,
        page: &PageRequest<ChatPlace>,
    ) -> Done<Page<Chat, ChatPlace>> {
        let statement = query(DEVICE)
            .bind(&device)
            .bind(&scope.user_id)
            .bind(device_list(scope));
        if self.read_rows(statement, |c| c.int()).await?.is_empty() {
            return Err(Fail::not_found("device"));
        }
        let (limit, edge) = (page.clamped(), page.after.unwrap_or(ChatPlace::LAST));
        let statement = query(PAGE)
            .bind(&device)
            .bind(edge.at.as_millis())
            .bind(&edge.id)
            .bind(int(limit as u64 + 1));
        let chats = self.read_rows(statement, read_chat).await?;
        let page = Page::cut(chats, limit, Chat::place);
        Ok(Page {
            rows: self.with_last(page.rows).await?,
            next: page.next,
        })
    }

    async fn page_of_messages(
        &self,
        scope: &RequestScope,
        id: ChatId,
        page: &ChatPage,
    ) -> Done<Page<ChatMessage, ChatMessagePlace>> {
        let chat = self.find_chat(scope, id).await?;
        let (edge, limit) = (page.edge(), int(page.clamped() as u64 + 1));
        let (kept, sent) = if page.rises() {
            (KEPT_AFTER, SENT_AFTER)
        } else {
            (KEPT_BEFORE, SENT_BEFORE)
        };
        let kept = query(kept)
            .bind(&id)
            .bind(edge.at.as_millis())
            .bind(&edge.id)
            .bind(limit);
        let kept = self.read_rows(kept, read_kept).await?;
        let sent = query(sent)
            .bind(&chat.person)
            .bind(&chat.user_id)
            .bind(&chat.device_id)
            .bind(edge.at.as_millis())
            .bind(&edge.id)
            .bind(limit);
        let sent = self.read_rows(sent, read_message).await?;
        let sent = sent.iter().filter_map(|one| ChatMessage::of_outbox(id, one)).collect();
        Ok(page.merge(kept, sent))
    }
}

fn failed(operation: &'static str) -> impl FnOnce(Fail) -> StoreError {
    move |fail| fail.of(operation, "chat")
}

#[async_trait]
impl ChatStore for PostgresStore {
    async fn chat(&self, scope: &RequestScope, id: ChatId) -> Result<Chat, StoreError> {
        let read = async {
            let found = self.find_chat(scope, id).await?;
            self.with_last(vec![found]).await?.pop().ok_or(Fail::not_found("chat"))
        };
        read.await.map_err(failed("chat"))
    }

    async fn chats(
        &self,
        scope: &RequestScope,
        device: DeviceId,
        page: &PageRequest<ChatPlace>,
    ) -> Result<Page<Chat, ChatPlace>, StoreError> {
        let read = self.page_of_chats(scope, device, page).await;
        read.map_err(failed("chats"))
    }

    async fn chat_messages(
        &self,
        scope: &RequestScope,
        id: ChatId,
        page: &ChatPage,
    ) -> Result<Page<ChatMessage, ChatMessagePlace>, StoreError> {
        let read = self.page_of_messages(scope, id, page).await;
        read.map_err(failed("chat_messages"))
    }

    async fn sweep_chats(&self, before: Timestamp, limit: u32) -> Result<u64, StoreError> {
        self.write(Op(WriteClass::Bulk, "sweep_chats", "chat"), move |connection| {
            Box::pin(sweep(connection, before, limit))
        })
        .await
    }
}
