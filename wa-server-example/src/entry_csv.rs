//! Recipients of a campaign as rows of CSV, each with its own text.

use std::io::{self, Read};

use wa_core::domain::lead::Lead;
use wa_core::plan::EntryDraft;

use crate::csv_file::{Row, Table, is_name, is_phone, squeezed};

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Phone,
    Name,
    Text,
    /// A merge field, `{{custom.key}}`.
    Custom(String),
}

impl Column {
    /// Every column that is none of the known ones and can be named in a text is a merge field.
    fn of(header: &str) -> Option<Self> {
        match squeezed(header).as_str() {
            known if is_phone(known) => return Some(Self::Phone),
            known if is_name(known) => return Some(Self::Name),
            "text" | "message" | "mesej" | "pesan" | "body" | "caption" => return Some(Self::Text),
            _ => {}
        }
        let key = match header.get(..7) {
            Some(start) if start.eq_ignore_ascii_case("custom.") => &header[7..],
            _ => header,
        };
        let usable = (1..=Lead::CUSTOM_KEY_MAX).contains(&key.chars().count())
            && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-'));
        usable.then(|| Self::Custom(key.to_owned()))
    }

    fn name(&self) -> String {
        match self {
            Self::Phone => "phone".to_owned(),
            Self::Name => "name".to_owned(),
            Self::Text => "message".to_owned(),
            Self::Custom(key) => format!("custom.{key}"),
        }
    }
}

/// Reads recipients from CSV.
pub struct EntryReader<R>(Table<R, Column>);

impl<R: Read> EntryReader<R> {
    /// Starts to read; rows of more bytes are refused.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, for people.
    pub fn new(file: R, row_bytes_max: usize) -> Result<Self, String> {
        let table = Table::new(file, row_bytes_max, Column::of)?;
        if !table.has(|column| *column == Column::Phone) {
            return Err("the first line must name the columns, one of them phone".to_owned());
        }
        Ok(Self(table))
    }

    /// The next row; blank ones are passed over.
    ///
    /// # Errors
    /// The file cannot be read on; there may be more rows.
    pub fn next_row(&mut self) -> io::Result<Option<Row<EntryDraft>>> {
        self.0.next_row(Column::name, |draft: &mut EntryDraft, column, text| {
            match column {
                Column::Phone => text.trim().clone_into(&mut draft.phone),
                Column::Name => draft.name = Some(text.to_owned()),
                Column::Text => draft.message = Some(text.to_owned()),
                Column::Custom(key) => drop(draft.custom.insert(key.clone(), text.trim().to_owned())),
            }
            Ok(())
        })
    }

    /// The names of columns that were left out.
    #[must_use]
    pub fn left_out(self) -> Vec<String> {
        self.0.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_a_number_a_text_of_its_own_and_merge_fields() {
        let file = "No Tel;Mesej;nama;Bandar;custom.kod;what is this?\n0123456789;Hi {{custom.Bandar}};Ali;KL;=A1;x\n;;;;;\n0123456780\n";
        let mut reader = EntryReader::new(file.as_bytes(), 1_000).unwrap();
        let rows: Vec<_> = std::iter::from_fn(|| reader.next_row().unwrap()).collect();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [2, 4]);
        let draft = rows[0].draft.as_ref().unwrap();
        assert_eq!(
            (draft.phone.as_str(), draft.name.as_deref()),
            ("0123456789", Some("Ali"))
        );
        assert_eq!(draft.message.as_deref(), Some("Hi {{custom.Bandar}}"));
        assert_eq!(
            (draft.custom["Bandar"].as_str(), draft.custom["kod"].as_str()),
            ("KL", "=A1")
        );
        assert_eq!(reader.left_out(), ["what is this?"]);
        assert!(EntryReader::new("text\nHi\n".as_bytes(), 1_000).is_err());
    }
}
