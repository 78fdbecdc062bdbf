//! Between rows and the domain: columns are read in the order in which a statement names them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use secrecy::ExposeSecret;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use wa_core::domain::access::RequestScope;
use wa_core::time::Timestamp;

use crate::error::{Done, Fail};

/// What is kept as 16 bytes.
pub(crate) trait Key: Sized {
    fn bytes(&self) -> &[u8; 16];
    fn from_slice(bytes: &[u8]) -> Option<Self>;
}

macro_rules! keys {
    ($($name:path),+ $(,)?) => {$(
        impl Key for $name {
            fn bytes(&self) -> &[u8; 16] {
                self.as_bytes()
            }
            fn from_slice(bytes: &[u8]) -> Option<Self> {
                Self::from_slice(bytes)
            }
        }
    )+};
}

keys!(
    wa_core::id::UserId,
    wa_core::id::DeviceId,
    wa_core::id::LeadId,
    wa_core::id::CampaignId,
    wa_core::id::SequenceId,
    wa_core::id::StepId,
    wa_core::id::EnrolmentId,
    wa_core::id::MessageId,
    wa_core::id::AttemptId,
    wa_core::id::TemplateId,
    wa_core::id::EventId,
    wa_core::id::CommandId,
    wa_core::id::Incarnation,
    wa_core::id::ImportId,
    wa_core::id::ChatId,
    wa_core::id::ChatMessageId,
    wa_core::domain::phone::PersonKey,
    wa_core::domain::message::IdempotencyKey,
);

/// The bytes of a key as a parameter.
pub(crate) fn blob(key: &impl Key) -> &[u8] {
    key.bytes()
}

/// The bytes of a key that may be missing.
pub(crate) fn opt_blob<K: Key>(key: Option<&K>) -> Option<&[u8]> {
    key.map(|key| key.bytes().as_slice())
}

/// Adds bytes as hexadecimal digits.
fn push_hex(text: &mut String, bytes: &[u8]) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
    ];
    for byte in bytes {
        text.push(DIGITS[usize::from(byte >> 4)]);
        text.push(DIGITS[usize::from(byte & 15)]);
    }
}

/// The bytes of a key as hexadecimal digits, for lists of keys in JSON.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    push_hex(&mut text, bytes);
    text
}

/// Keys as a JSON list, for `unhex(value)` over `json_each`.
pub(crate) fn hex_list<'a, K: Key + 'a>(keys: impl IntoIterator<Item = &'a K>) -> String {
    let mut text = String::from("[");
    for key in keys {
        if text.len() > 1 {
            text.push(',');
        }
        text.push('"');
        push_hex(&mut text, key.bytes());
        text.push('"');
    }
    text.push(']');
    text
}

/// Keys one behind the other, for `substr(?, key * 16 + 1, 16)` over the places of a list: SQLite takes bytes out of a parameter
/// without reading those before them, which is less work than digits to decode, or a parameter for each.
pub(crate) fn packed<'a, K: Key + 'a>(keys: impl Iterator<Item = &'a K>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(keys.size_hint().0 * 16);
    for key in keys {
        bytes.extend_from_slice(key.bytes());
    }
    bytes
}

/// Numbers one behind the other, for `CAST(substr(?, key * 20 + 1, 20) AS INTEGER)`: each takes as much as the longest.
pub(crate) fn packed_numbers(numbers: impl Iterator<Item = i64>) -> Vec<u8> {
    let mut digits = String::with_capacity(numbers.size_hint().0 * 20);
    for number in numbers {
        // To a string it cannot fail.
        let _ = write!(digits, "{number:20}");
    }
    digits.into_bytes()
}

/// A key as hexadecimal digits in a list that SQLite gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HexKey<K>(pub(crate) K);

impl<'de, K: Key> Deserialize<'de> for HexKey<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = <&str>::deserialize(deserializer)?;
        let key = from_hex(digits).and_then(|bytes| K::from_slice(&bytes));
        key.map(Self).ok_or_else(|| D::Error::custom("not a key"))
    }
}

fn from_hex(digits: &str) -> Option<[u8; 16]> {
    let digits: &[u8; 32] = digits.as_bytes().try_into().ok()?;
    let mut bytes = [0; 16];
    for (byte, [high, low]) in bytes.iter_mut().zip(digits.as_chunks::<2>().0) {
        let [high, low] = [high, low].map(|digit| char::from(*digit).to_digit(16));
        *byte = u8::try_from(high? << 4 | low?).ok()?;
    }
    Some(bytes)
}

/// Runs a statement that gathers what it finds in one JSON list: every row that leaves SQLite wakes whoever waits for it, which
/// costs more than what is read for a message.
pub(crate) async fn fetch_list<T: DeserializeOwned>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    parameter: String,
) -> Done<Vec<T>> {
    let row = sqlx::query(sql).bind(parameter).fetch_one(connection).await?;
    read_gathered(&row)
}

/// Reads what a statement has gathered in one JSON list.
pub(crate) fn read_gathered<T: DeserializeOwned>(row: &SqliteRow) -> Done<Vec<T>> {
    Columns::of(row).json("list")
}

/// Numbers as a JSON list.
pub(crate) fn number_list(numbers: impl IntoIterator<Item = u8>) -> String {
    json(&numbers.into_iter().collect::<Vec<_>>())
}

/// The devices to which a request is limited, as a JSON list; `None` for all of the user.
pub(crate) fn device_list(scope: &RequestScope) -> Option<String> {
    scope.devices.as_ref().map(hex_list)
}

/// A value as JSON. The domain's own types are always representable.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).expect("the domain's types are representable in JSON")
}

/// A value that may be missing as JSON.
pub(crate) fn opt_json<T: Serialize>(value: Option<&T>) -> Option<String> {
    value.map(json)
}

/// Own fields; most rows have none.
pub(crate) fn custom_json(custom: &BTreeMap<String, String>) -> Option<String> {
    (!custom.is_empty()).then(|| json(custom))
}

/// The text of an enum that has no number, as its JSON string without quotes.
pub(crate) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// A count as SQLite keeps it.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// How many there are.
pub(crate) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The text of a secret, to be written into the database only.
pub(crate) fn expose(secret: &secrecy::SecretString) -> &str {
    secret.expose_secret()
}

/// Reads the columns of a row one after the other.
pub(crate) struct Columns<'r> {
    row: &'r SqliteRow,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(crate) const fn of(row: &'r SqliteRow) -> Self {
        Self { row, next: 0 }
    }

    fn take<T>(&mut self) -> Done<T>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        let at = self.next;
        self.next += 1;
        Ok(self.row.try_get(at)?)
    }

    pub(crate) fn int(&mut self) -> Done<i64> {
        self.take()
    }

    pub(crate) fn opt_int(&mut self) -> Done<Option<i64>> {
        self.take()
    }

    pub(crate) fn count(&mut self) -> Done<u64> {
        Ok(u64::try_from(self.int()?).unwrap_or(0))
    }

    pub(crate) fn small<N: TryFrom<i64>>(&mut self, column: &'static str) -> Done<N> {
        N::try_from(self.int()?).map_err(|_| Fail::Unreadable(column))
    }

    pub(crate) fn flag(&mut self) -> Done<bool> {
        Ok(self.int()? != 0)
    }

    pub(crate) fn text(&mut self) -> Done<String> {
        self.take()
    }

    pub(crate) fn str(&mut self) -> Done<&'r str> {
        self.take()
    }

    pub(crate) fn opt_str(&mut self) -> Done<Option<&'r str>> {
        self.take()
    }

    pub(crate) fn opt_text(&mut self) -> Done<Option<String>> {
        self.take()
    }

    pub(crate) fn bytes(&mut self) -> Done<&'r [u8]> {
        self.take()
    }

    pub(crate) fn at(&mut self) -> Done<Timestamp> {
        Ok(Timestamp::from_millis(self.int()?))
    }

    pub(crate) fn opt_at(&mut self) -> Done<Option<Timestamp>> {
        Ok(self.opt_int()?.map(Timestamp::from_millis))
    }

    pub(crate) fn key<K: Key>(&mut self, column: &'static str) -> Done<K> {
        K::from_slice(self.bytes()?).ok_or(Fail::Unreadable(column))
    }

    /// A key; NULL and the empty blob are none.
    pub(crate) fn opt_key<K: Key>(&mut self, column: &'static str) -> Done<Option<K>> {
        match self.take::<Option<&'r [u8]>>()? {
            None | Some([]) => Ok(None),
            Some(bytes) => K::from_slice(bytes).map(Some).ok_or(Fail::Unreadable(column)),
        }
    }

    /// An enum that is kept as its number.
    pub(crate) fn kind<T>(&mut self, column: &'static str, from: impl FnOnce(u8) -> Option<T>) -> Done<T> {
        u8::try_from(self.int()?)
            .ok()
            .and_then(from)
            .ok_or(Fail::Unreadable(column))
    }

    pub(crate) fn opt_kind<T>(&mut self, column: &'static str, from: impl FnOnce(u8) -> Option<T>) -> Done<Option<T>> {
        match self.opt_int()? {
            None => Ok(None),
            Some(number) => u8::try_from(number)
                .ok()
                .and_then(from)
                .map(Some)
                .ok_or(Fail::Unreadable(column)),
        }
    }

    /// A value that is kept as JSON.
    pub(crate) fn json<T: DeserializeOwned>(&mut self, column: &'static str) -> Done<T> {
        serde_json::from_str(self.str()?).map_err(|_| Fail::Unreadable(column))
    }

    pub(crate) fn opt_json<T: DeserializeOwned>(&mut self, column: &'static str) -> Done<Option<T>> {
        self.opt_str()?
            .map(|text| serde_json::from_str(text).map_err(|_| Fail::Unreadable(column)))
            .transpose()
    }

    /// An enum that is kept as its word.
    pub(crate) fn opt_word<T: DeserializeOwned>(&mut self, column: &'static str) -> Done<Option<T>> {
        self.opt_str()?
            .map(|text| serde_json::from_value(text.into()).map_err(|_| Fail::Unreadable(column)))
            .transpose()
    }

    /// A value that is kept as the text it parses from.
    pub(crate) fn parse<T: std::str::FromStr>(&mut self, column: &'static str) -> Done<T> {
        self.str()?.parse().map_err(|_| Fail::Unreadable(column))
    }
}

/// All rows of a statement, each read by the same function.
pub(crate) fn read_all<T>(rows: &[SqliteRow], read: impl Fn(&mut Columns<'_>) -> Done<T>) -> Done<Vec<T>> {
    rows.iter().map(|row| read(&mut Columns::of(row))).collect()
}
