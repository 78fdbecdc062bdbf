//! Between rows and the domain: columns are read in the order in which a statement names them.

use std::collections::{BTreeMap, HashSet};
use std::hash::Hash;

use secrecy::ExposeSecret;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgRow, PgTypeInfo, PgValueRef};
use sqlx::{Postgres, Row};
use uuid::Uuid;
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

/// A key as a parameter.
pub(crate) fn uuid(key: &impl Key) -> Uuid {
    Uuid::from_bytes(*key.bytes())
}

/// Keys as one parameter, for `unnest($1::uuid[])` and `ANY ($1)`.
pub(crate) fn keys<'a, K: Key + 'a>(keys: impl IntoIterator<Item = &'a K>) -> Vec<Uuid> {
    keys.into_iter().map(uuid).collect()
}

/// Numbers as one parameter.
pub(crate) fn number_list(numbers: impl IntoIterator<Item = u8>) -> Vec<i64> {
    numbers.into_iter().map(i64::from).collect()
}

/// The devices to which a request is limited; `None` for all of the user.
pub(crate) fn device_list(scope: &RequestScope) -> Option<Vec<Uuid>> {
    scope.devices.as_ref().map(keys)
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

/// A count as Postgres keeps it.
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

/// A whole number of any width, or a flag.
struct Int(i64);

impl sqlx::Type<Postgres> for Int {
    fn type_info() -> PgTypeInfo {
        <i64 as sqlx::Type<Postgres>>::type_info()
    }

    fn compatible(ty: &PgTypeInfo) -> bool {
        <i64 as sqlx::Type<Postgres>>::compatible(ty)
            || <i32 as sqlx::Type<Postgres>>::compatible(ty)
            || <i16 as sqlx::Type<Postgres>>::compatible(ty)
            || <bool as sqlx::Type<Postgres>>::compatible(ty)
    }
}

impl<'r> sqlx::Decode<'r, Postgres> for Int {
    fn decode(value: PgValueRef<'r>) -> Result<Self, BoxDynError> {
        let bytes = value.as_bytes()?;
        if let Ok(bytes) = bytes.try_into() {
            return Ok(Self(i64::from_be_bytes(bytes)));
        }
        if let Ok(bytes) = bytes.try_into() {
            return Ok(Self(i32::from_be_bytes(bytes).into()));
        }
        if let Ok(bytes) = bytes.try_into() {
            return Ok(Self(i16::from_be_bytes(bytes).into()));
        }
        match bytes {
            [flag] => Ok(Self((*flag).into())),
            _ => Err("not a number".into()),
        }
    }
}

/// Reads the columns of a row one after the other.
pub(crate) struct Columns<'r> {
    row: &'r PgRow,
    next: usize,
}

impl<'r> Columns<'r> {
    pub(crate) const fn of(row: &'r PgRow) -> Self {
        Self { row, next: 0 }
    }

    fn take<T>(&mut self) -> Done<T>
    where
        T: sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres>,
    {
        let at = self.next;
        self.next += 1;
        Ok(self.row.try_get(at)?)
    }

    pub(crate) fn int(&mut self) -> Done<i64> {
        self.take::<Int>().map(|number| number.0)
    }

    pub(crate) fn opt_int(&mut self) -> Done<Option<i64>> {
        Ok(self.take::<Option<Int>>()?.map(|number| number.0))
    }

    pub(crate) fn count(&mut self) -> Done<u64> {
        Ok(u64::try_from(self.int()?).unwrap_or(0))
    }

    pub(crate) fn small<N: TryFrom<i64>>(&mut self, column: &'static str) -> Done<N> {
        N::try_from(self.int()?).map_err(|_| Fail::Unreadable(column))
    }

    /// The place in a list that a statement was given; Postgres counts from 1.
    pub(crate) fn place(&mut self) -> Done<usize> {
        usize::try_from(self.int()? - 1).map_err(|_| Fail::Unreadable("place"))
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

    pub(crate) fn uuid(&mut self) -> Done<Uuid> {
        self.take()
    }

    pub(crate) fn at(&mut self) -> Done<Timestamp> {
        Ok(Timestamp::from_millis(self.int()?))
    }

    pub(crate) fn opt_at(&mut self) -> Done<Option<Timestamp>> {
        Ok(self.opt_int()?.map(Timestamp::from_millis))
    }

    pub(crate) fn key<K: Key>(&mut self, column: &'static str) -> Done<K> {
        K::from_slice(self.uuid()?.as_bytes()).ok_or(Fail::Unreadable(column))
    }

    pub(crate) fn opt_key<K: Key>(&mut self, column: &'static str) -> Done<Option<K>> {
        self.take::<Option<Uuid>>()?
            .map(|key| K::from_slice(key.as_bytes()).ok_or(Fail::Unreadable(column)))
            .transpose()
    }

    /// Keys that a statement gathered into one array, which costs less than a row for each; none where it is NULL.
    pub(crate) fn key_set<K: Key + Eq + Hash>(&mut self, column: &'static str) -> Done<HashSet<K>> {
        let keys = self.take::<Option<Vec<Uuid>>>()?.unwrap_or_default();
        let keys = keys.iter().map(|key| K::from_slice(key.as_bytes()));
        keys.collect::<Option<_>>().ok_or(Fail::Unreadable(column))
    }

    /// A device of a tally, where nil stands for the pool.
    pub(crate) fn pool_key<K: Key>(&mut self, column: &'static str) -> Done<Option<K>> {
        let key = self.uuid()?;
        if key.is_nil() {
            return Ok(None);
        }
        K::from_slice(key.as_bytes()).map(Some).ok_or(Fail::Unreadable(column))
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
pub(crate) fn read_all<T>(rows: &[PgRow], read: impl Fn(&mut Columns<'_>) -> Done<T>) -> Done<Vec<T>> {
    rows.iter().map(|row| read(&mut Columns::of(row))).collect()
}
