//! How rows are shown.

use serde::Serialize;

/// The word that a plain enum is written as.
pub(super) fn word(value: &impl Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}
