//! Leads as rows of CSV, both ways.

use std::collections::BTreeMap;
use std::io::Read;

use wa_core::domain::lead::Lead;
use wa_core::id::DeviceId;
use wa_core::plan::LeadDraft;

/// Columns of an exported file; those of own fields and labels are read back, too.
pub const COLUMNS: [&str; 9] = [
    "name",
    "phone",
    "niche",
    "target_status",
    "trigger",
    "journey",
    "pipeline_status",
    "tags",
    "device_id",
];

/// Most bytes of one row; longer ones are refused.
pub const ROW_BYTES_MAX: usize = 64 * 1_024;

/// One lead as a row.
#[must_use]
pub fn row(lead: &Lead) -> Vec<String> {
    vec![
        plain(&lead.name),
        lead.phone.as_e164().to_owned(),
        plain(&lead.niches.to_string()),
        match lead.target_status {
            wa_core::domain::lead::TargetStatus::Prospect => "prospect".to_owned(),
            wa_core::domain::lead::TargetStatus::Customer => "customer".to_owned(),
        },
        plain(&lead.triggers.to_string()),
        plain(&lead.journey),
        plain(&lead.pipeline_status),
        plain(&lead.tags.to_string()),
        lead.device_id.map(|id| id.to_string()).unwrap_or_default(),
    ]
}

/// A text that a spreadsheet does not take for a formula.
#[must_use]
pub fn plain(text: &str) -> String {
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Rows as CSV.
///
/// # Panics
/// Never: memory can be written to.
#[must_use]
pub fn encode(rows: &[Vec<String>]) -> Vec<u8> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).expect("memory can be written to");
    }
    writer.into_inner().expect("memory can be written to")
}

/// What a column holds.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Column {
    Name,
    Phone,
    Niche,
    Target,
    Trigger,
    Journey,
    Pipeline,
    Tags,
    Device,
    Custom(String),
    Unknown,
}

impl Column {
    fn of(header: &str) -> Self {
        let plain = header.trim().trim_matches('"').to_lowercase();
        if let Some(key) = plain.strip_prefix("custom.") {
            let key = &header.trim()[header.trim().len() - key.len()..];
            return Self::Custom(key.to_owned());
        }
        let squeezed: String = plain.chars().filter(|c| c.is_alphanumeric()).collect();
        match squeezed.as_str() {
            "name" | "fullname" | "nama" | "contactname" | "customername" => Self::Name,
            "phone" | "phonenumber" | "mobile" | "mobilenumber" | "whatsapp" | "whatsappnumber" | "number"
            | "telefon" | "nomborphone" | "notelefon" | "notel" | "hp" | "nohp" | "contact" => Self::Phone,
            "niche" | "niches" => Self::Niche,
            "targetstatus" | "target" | "status" => Self::Target,
            "trigger" | "triggers" | "sequencetrigger" => Self::Trigger,
            "journey" | "notes" | "note" | "additionalnote" => Self::Journey,
            "pipelinestatus" | "pipeline" | "stage" => Self::Pipeline,
            "tags" | "tag" | "labels" | "label" => Self::Tags,
            "deviceid" | "device" => Self::Device,
            _ => Self::Unknown,
        }
    }
}

/// One row that was read.
#[derive(Debug)]
pub struct Row {
    /// Its line in the file, from 1 with the header.
    pub line: u64,
    /// Where it ends in the file.
    pub bytes_read: u64,
    /// The lead, or the field and what is wrong with it.
    pub draft: Result<LeadDraft, (String, String)>,
}

/// Reads leads from CSV: UTF-8 with or without a byte order mark, separated by `,`, `;` or tabs.
pub struct LeadReader<R> {
    reader: csv::Reader<R>,
    columns: Vec<Column>,
    record: csv::ByteRecord,
    device: Option<DeviceId>,
    /// Columns of the file that are not known and left out.
    pub left_out: Vec<String>,
}

impl<R: Read> LeadReader<R> {
    /// Starts to read; leads without a column for it get this device.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, for people.
    pub fn new(file: R, device: Option<DeviceId>) -> Result<LeadReader<impl Read>, String> {
        let mut file = std::io::BufReader::new(file);
        let first = first_line(&mut file).map_err(|error| format!("the file cannot be read: {error}"))?;
        let separator = separator(&first);
        let start = first
            .strip_prefix(b"\xEF\xBB\xBF")
            .map_or(first.clone(), <[u8]>::to_vec);
        let mut reader = csv::ReaderBuilder::new()
            .delimiter(separator)
            .flexible(true)
            .from_reader(PlainLines::new(std::io::Cursor::new(start).chain(file)));
        let headers = reader
            .byte_headers()
            .map_err(|error| format!("the first line cannot be read: {error}"))?;
        let names: Vec<String> = headers
            .iter()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let columns: Vec<_> = names.iter().map(|name| Column::of(name)).collect();
        if !columns.contains(&Column::Phone) {
            return Err("the first line must name the columns, one of them phone".to_owned());
        }
        let left_out = names
            .into_iter()
            .zip(&columns)
            .filter(|(name, column)| **column == Column::Unknown && !name.is_empty())
            .map(|(name, _)| name.chars().take(50).collect())
            .take(20)
            .collect();
        Ok(LeadReader {
            reader,
            columns,
            record: csv::ByteRecord::new(),
            device,
            left_out,
        })
    }

    /// The next row; blank ones are passed over.
    pub fn next_row(&mut self) -> Option<Row> {
        loop {
            let read = self.reader.read_byte_record(&mut self.record);
            let position = self.reader.position().byte();
            // Counted from the end: the reader's own count of where a row starts is off after blank lines.
            let inside = self.record.as_slice().iter().filter(|byte| **byte == b'\n').count() as u64;
            let line = self.reader.position().line().saturating_sub(inside + 1);
            match read {
                Ok(false) => return None,
                Ok(true) if self.record.iter().all(|field| field.trim_ascii().is_empty()) => {}
                Ok(true) => {
                    return Some(Row {
                        line,
                        bytes_read: position,
                        draft: self.draft(),
                    });
                }
                Err(error) => {
                    return Some(Row {
                        line: error.position().map_or(line, csv::Position::line),
                        bytes_read: position,
                        draft: Err(("row".to_owned(), "the row cannot be read".to_owned())),
                    });
                }
            }
        }
    }

    fn draft(&self) -> Result<LeadDraft, (String, String)> {
        if self.record.as_slice().len() > ROW_BYTES_MAX {
            let reason = format!("the row must have at most {ROW_BYTES_MAX} bytes; is a quotation mark left open?");
            return Err(("row".to_owned(), reason));
        }
        let mut draft = LeadDraft {
            device_id: self.device,
            ..LeadDraft::default()
        };
        let mut custom = BTreeMap::new();
        for (column, bytes) in self.columns.iter().zip(self.record.iter()) {
            let Ok(text) = std::str::from_utf8(bytes) else {
                return Err((name_of(column), "must be UTF-8 text".to_owned()));
            };
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let text = text.to_owned();
            match column {
                Column::Name => draft.name = Some(text),
                Column::Phone => draft.phone = Some(text),
                Column::Niche => draft.niche = Some(text),
                Column::Target => draft.target_status = Some(text),
                Column::Trigger => draft.trigger = Some(text),
                Column::Journey => draft.journey = Some(text),
                Column::Pipeline => draft.pipeline_status = Some(text),
                Column::Tags => draft.tags = Some(text),
                Column::Device => match text.parse() {
                    Ok(id) => draft.device_id = Some(id),
                    Err(_) => return Err(("device_id".to_owned(), "device_id must be a UUID".to_owned())),
                },
                Column::Custom(key) => drop(custom.insert(key.clone(), text)),
                Column::Unknown => {}
            }
        }
        draft.custom = custom;
        Ok(draft)
    }
}

fn name_of(column: &Column) -> String {
    match column {
        Column::Custom(key) => format!("custom.{key}"),
        Column::Unknown => "row".to_owned(),
        Column::Name => "name".to_owned(),
        Column::Phone => "phone".to_owned(),
        Column::Niche => "niche".to_owned(),
        Column::Target => "target_status".to_owned(),
        Column::Trigger => "trigger".to_owned(),
        Column::Journey => "journey".to_owned(),
        Column::Pipeline => "pipeline_status".to_owned(),
        Column::Tags => "tags".to_owned(),
        Column::Device => "device_id".to_owned(),
    }
}

/// A file whose lines all end with one line feed, the last one too, whatever wrote them.
struct PlainLines<R> {
    file: R,
    after_return: bool,
    at_end: bool,
}

impl<R> PlainLines<R> {
    const fn new(file: R) -> Self {
        Self {
            file,
            after_return: false,
            at_end: false,
        }
    }
}

impl<R: Read> Read for PlainLines<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        loop {
            let read = self.file.read(buffer)?;
            if read == 0 {
                if self.at_end || buffer.is_empty() {
                    return Ok(0);
                }
                self.at_end = true;
                buffer[0] = b'\n';
                return Ok(1);
            }
            let mut kept = 0;
            for at in 0..read {
                let byte = buffer[at];
                let second_half = byte == b'\n' && self.after_return;
                self.after_return = byte == b'\r';
                if !second_half {
                    buffer[kept] = if byte == b'\r' { b'\n' } else { byte };
                    kept += 1;
                }
            }
            // Nothing kept is not the end of the file.
            if kept > 0 {
                return Ok(kept);
            }
        }
    }
}

/// The bytes of the first line, of at most [`ROW_BYTES_MAX`].
fn first_line(file: &mut impl std::io::BufRead) -> std::io::Result<Vec<u8>> {
    use std::io::BufRead as _;
    let mut line = Vec::new();
    file.take(ROW_BYTES_MAX as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// What separates the columns: whatever stands most often in the first line, outside of quotation marks.
fn separator(line: &[u8]) -> u8 {
    let mut counts = [(b',', 0_u32), (b';', 0), (b'\t', 0)];
    let mut quoted = false;
    for byte in line {
        quoted ^= *byte == b'"';
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| !quoted && known == byte) {
            *count += 1;
        }
    }
    counts
        .iter()
        .rev()
        .max_by_key(|(_, count)| *count)
        .map_or(b',', |(byte, _)| *byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(file: &str) -> Vec<Row> {
        let mut reader = LeadReader::new(file.as_bytes(), None)
            .map_err(|e| e.clone())
            .ok()
            .unwrap();
        std::iter::from_fn(|| reader.next_row()).collect()
    }

    #[test]
    fn columns_are_found_by_their_usual_names_in_any_order_and_separated_by_comma_semicolon_or_tab() {
        for file in [
            "\u{FEFF}Phone Number;NAMA;custom.City\n0123456789;Ali, the first;KL\n",
            "nama,no_tel,custom.City\r\n\"Ali, the first\",0123456789,KL\r\n\r\n",
            "custom.City\tphone\tname\nKL\t0123456789\tAli, the first",
        ] {
            let rows = rows(file);
            assert_eq!((rows.len(), rows[0].line), (1, 2), "{file:?}");
            let draft = rows[0].draft.as_ref().unwrap();
            assert_eq!(draft.name.as_deref(), Some("Ali, the first"));
            assert_eq!(draft.phone.as_deref(), Some("0123456789"));
            assert_eq!(draft.custom["City"], "KL");
        }
    }

    #[test]
    fn a_row_that_cannot_be_read_is_told_with_its_line_and_the_rest_goes_on() {
        let mut file = b"name,phone\nA,1\n\xFF,2\nC,3\n".to_vec();
        file.extend_from_slice(format!("{},4\nE,5\n", "x".repeat(ROW_BYTES_MAX)).as_bytes());
        let mut reader = LeadReader::new(file.as_slice(), None).ok().unwrap();
        let rows: Vec<_> = std::iter::from_fn(|| reader.next_row()).collect();
        let bad: Vec<_> = rows
            .iter()
            .filter_map(|row| row.draft.as_ref().err().map(|(field, _)| (row.line, field.as_str())))
            .collect();
        assert_eq!((rows.len(), bad), (5, vec![(3, "name"), (5, "row")]));
    }

    #[test]
    fn a_row_is_told_by_the_line_it_starts_on_whatever_ends_the_lines() {
        let plain = "name,phone\n\n\"A\nB\",1\n\n\nC,2\nD,3";
        for ending in ["\n", "\r\n", "\r"] {
            let lines: Vec<_> = rows(&plain.replace('\n', ending)).iter().map(|row| row.line).collect();
            assert_eq!(lines, [3, 7, 8], "{ending:?}");
        }
    }

    #[test]
    fn a_file_without_a_phone_column_is_refused_as_a_whole() {
        assert!(LeadReader::new("a,b\n1,2\n".as_bytes(), None).is_err());
        assert!(LeadReader::new("".as_bytes(), None).is_err());
    }

    #[test]
    fn no_cell_is_a_formula() {
        assert_eq!(plain("=1+1"), "'=1+1");
        assert_eq!(plain("Ali"), "Ali");
        let text = String::from_utf8(encode(&[vec!["a,b".to_owned(), "c\"d".to_owned()]])).unwrap();
        assert_eq!(text, "\"a,b\",\"c\"\"d\"\n");
    }
}
