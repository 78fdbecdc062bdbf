//! Leads as rows of CSV, both ways.

use std::collections::BTreeMap;
use std::io::{self, Read};

use serde::Deserialize;
use serde::de::value::StrDeserializer;
use wa_core::domain::access::RequestScope;
use wa_core::domain::lead::{Lead, TargetStatus};
use wa_core::id::DeviceId;
use wa_core::plan::{ConsentDraft, LeadDraft};
use wa_core::store::{LeadFilter, LeadStore, PAGE_MAX, PageRequest, StoreError};
use wa_core::time::Timestamp;

use crate::csv_file::{Refused, Row, Table, is_name, is_phone, plain, squeezed};

/// Columns of every exported file; after them comes one for each own field, as `custom.key`.
pub const COLUMNS: [&str; 12] = [
    "name",
    "phone",
    "niche",
    "target_status",
    "trigger",
    "journey",
    "pipeline_status",
    "tags",
    "device_id",
    "consent_source",
    "consent_at",
    // Own fields that cannot stand in a column of their own, as a JSON object.
    "custom",
];

/// Most own fields that get a column of their own in an exported file.
pub const CUSTOM_COLUMNS_MAX: usize = 200;

/// The form of an exported file: everything that an import can read back.
#[derive(Debug, Clone, Default)]
pub struct LeadSheet {
    keys: Vec<String>,
}

impl LeadSheet {
    /// Looks through the leads for their own fields, so that each gets its column.
    ///
    /// # Errors
    /// The leads could not be read.
    pub async fn of(
        store: &(impl LeadStore + ?Sized),
        scope: &RequestScope,
        filter: &LeadFilter,
    ) -> Result<Self, StoreError> {
        let mut sheet = Self::default();
        let mut request = PageRequest::first(PAGE_MAX);
        loop {
            let page = store.leads(scope, filter, &request).await?;
            page.rows.iter().for_each(|lead| sheet.add(lead));
            match page.next {
                Some(next) if sheet.keys.len() < CUSTOM_COLUMNS_MAX => request = PageRequest::after(next, PAGE_MAX),
                _ => return Ok(sheet),
            }
        }
    }

    fn add(&mut self, lead: &Lead) {
        for key in lead.custom.keys() {
            if let Err(at) = self.keys.binary_search(key)
                && self.keys.len() < CUSTOM_COLUMNS_MAX
            {
                self.keys.insert(at, key.clone());
            }
        }
    }

    /// The names of the columns.
    #[must_use]
    pub fn header(&self) -> Vec<String> {
        let own = self.keys.iter().map(|key| format!("custom.{key}"));
        COLUMNS.into_iter().map(str::to_owned).chain(own).collect()
    }

    /// One lead as a row.
    #[must_use]
    pub fn row(&self, lead: &Lead) -> Vec<String> {
        // An empty cell is no field, and blanks around a cell are no part of it.
        let in_column = |key: &str, value: &str| {
            !value.is_empty()
                && value.trim() == value
                && self.keys.binary_search_by(|known| known.as_str().cmp(key)).is_ok()
        };
        let rest: BTreeMap<_, _> = lead
            .custom
            .iter()
            .filter(|(key, value)| !in_column(key, value))
            .collect();
        let rest = if rest.is_empty() {
            String::new()
        } else {
            serde_json::to_string(&rest).expect("texts by texts are JSON")
        };
        let consent = lead.consent.as_ref();
        let mut row = vec![
            plain(&lead.name),
            lead.phone.as_e164().to_owned(),
            plain(&lead.niches.to_string()),
            match lead.target_status {
                TargetStatus::Prospect => "prospect".to_owned(),
                TargetStatus::Customer => "customer".to_owned(),
            },
            plain(&lead.triggers.to_string()),
            plain(&lead.journey),
            plain(&lead.pipeline_status),
            plain(&lead.tags.to_string()),
            lead.device_id.map(|id| id.to_string()).unwrap_or_default(),
            consent.map(|consent| plain(&consent.source)).unwrap_or_default(),
            consent.map(|consent| consent.given_at.to_string()).unwrap_or_default(),
            rest,
        ];
        row.extend(self.keys.iter().map(|key| match lead.custom.get(key) {
            Some(value) if in_column(key, value) => plain(value),
            _ => String::new(),
        }));
        row
    }
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
    ConsentSource,
    ConsentAt,
    Custom(String),
    Customs,
}

impl Column {
    fn of(header: &str) -> Option<Self> {
        if let Some(start) = header.get(..7)
            && start.eq_ignore_ascii_case("custom.")
        {
            return Some(Self::Custom(header[7..].to_owned()));
        }
        Some(match squeezed(header).as_str() {
            known if is_name(known) => Self::Name,
            known if is_phone(known) => Self::Phone,
            "niche" | "niches" => Self::Niche,
            "targetstatus" | "target" | "status" => Self::Target,
            "trigger" | "triggers" | "sequencetrigger" => Self::Trigger,
            "journey" | "notes" | "note" | "additionalnote" => Self::Journey,
            "pipelinestatus" | "pipeline" | "stage" => Self::Pipeline,
            "tags" | "tag" | "labels" | "label" => Self::Tags,
            "deviceid" | "device" => Self::Device,
            "consentsource" | "consent" => Self::ConsentSource,
            "consentat" => Self::ConsentAt,
            "custom" => Self::Customs,
            _ => return None,
        })
    }

    fn name(&self) -> String {
        match self {
            Self::Custom(key) => return format!("custom.{key}"),
            Self::Name => "name",
            Self::Phone => "phone",
            Self::Niche => "niche",
            Self::Target => "target_status",
            Self::Trigger => "trigger",
            Self::Journey => "journey",
            Self::Pipeline => "pipeline_status",
            Self::Tags => "tags",
            Self::Device => "device_id",
            Self::ConsentSource => "consent.source",
            Self::ConsentAt => "consent.given_at",
            Self::Customs => "custom",
        }
        .to_owned()
    }
}

/// Whose leads a file holds.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeadDevice {
    /// The device of leads whose row names none.
    pub device_id: Option<DeviceId>,
    /// Whether rows are not asked: the column that names devices is left out, as in a file of another user.
    pub alone: bool,
}

/// Reads leads from CSV.
pub struct LeadReader<R> {
    table: Table<R, Column>,
    device: LeadDevice,
}

impl<R: Read> LeadReader<R> {
    /// Starts to read; rows of more bytes are refused.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, for people.
    pub fn new(file: R, device: LeadDevice, row_bytes_max: usize) -> Result<Self, String> {
        let column = |header: &str| Column::of(header).filter(|column| !device.alone || *column != Column::Device);
        let table = Table::new(file, row_bytes_max, column)?;
        if !table.has(|column| *column == Column::Phone) {
            return Err("the first line must name the columns, one of them phone".to_owned());
        }
        Ok(Self { table, device })
    }

    /// The next row; blank ones are passed over.
    ///
    /// # Errors
    /// The file cannot be read on; there may be more rows.
    pub fn next_row(&mut self) -> io::Result<Option<Row<LeadDraft>>> {
        let device = self.device.device_id;
        let mut row = self.table.next_row(Column::name, put)?;
        if let Some(Row { draft: Ok(draft), .. }) = &mut row {
            draft.device_id = draft.device_id.or(device);
        }
        Ok(row)
    }

    /// The names of columns that were left out.
    #[must_use]
    pub fn left_out(self) -> Vec<String> {
        self.table.left_out
    }
}

/// Puts a cell into its field.
fn put(draft: &mut LeadDraft, column: &Column, cell: &str) -> Result<(), Refused> {
    let text = cell.trim();
    // Only here blanks may be meant.
    if *column == Column::Journey {
        draft.journey = Some(cell.to_owned());
        return Ok(());
    }
    if text.is_empty() {
        return Ok(());
    }
    let expected = |what: &str| (column.name(), format!("{} must be {what}", column.name()));
    let text = text.to_owned();
    match column {
        Column::Name => draft.name = Some(text),
        Column::Phone => draft.phone = Some(text),
        Column::Niche => draft.niche = Some(text),
        Column::Target => draft.target_status = Some(text),
        Column::Trigger => draft.trigger = Some(text),
        Column::Journey => {}
        Column::Pipeline => draft.pipeline_status = Some(text),
        Column::Tags => draft.tags = Some(text),
        Column::Device => draft.device_id = Some(text.parse().map_err(|_| expected("a UUID"))?),
        Column::ConsentSource => draft.consent.get_or_insert_with(ConsentDraft::default).source = text,
        Column::ConsentAt => {
            let at = Timestamp::deserialize(StrDeserializer::<serde::de::value::Error>::new(&text))
                .map_err(|_| expected("an instant such as 2026-11-21T08:00:00Z"))?;
            draft.consent.get_or_insert_with(ConsentDraft::default).given_at = Some(at);
        }
        Column::Custom(key) => drop(draft.custom.insert(key.clone(), text)),
        Column::Customs => {
            let fields: BTreeMap<String, String> =
                serde_json::from_str(&text).map_err(|_| expected("a JSON object of texts"))?;
            draft.custom.extend(fields);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wa_core::domain::lead::Consent;
    use wa_core::domain::phone::Phone;
    use wa_core::domain::token::TokenSet;
    use wa_core::id::{LeadId, UserId};

    use super::*;
    use crate::csv_file::{ROW_BYTES_MAX, encode};

    fn rows(file: &str) -> Vec<Row<LeadDraft>> {
        let mut reader = LeadReader::new(file.as_bytes(), LeadDevice::default(), ROW_BYTES_MAX).unwrap();
        std::iter::from_fn(|| reader.next_row().unwrap()).collect()
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
        let mut reader = LeadReader::new(file.as_slice(), LeadDevice::default(), ROW_BYTES_MAX).unwrap();
        let rows: Vec<_> = std::iter::from_fn(|| reader.next_row().unwrap()).collect();
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
        for file in ["a,b\n1,2\n", ""] {
            assert!(LeadReader::new(file.as_bytes(), LeadDevice::default(), ROW_BYTES_MAX).is_err());
        }
    }

    #[test]
    fn what_a_lead_says_reads_back_from_its_row_whatever_is_in_it() {
        let lead = |custom: &[(&str, &str)]| Lead {
            name: "=Ali, \"the first\"".to_owned(),
            niches: TokenSet::parse("EXA,Vitac").unwrap(),
            triggers: TokenSet::parse("start").unwrap(),
            target_status: TargetStatus::Customer,
            journey: " called\r\n'- twice\n".to_owned(),
            pipeline_status: "-new".to_owned(),
            custom: custom
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
            tags: TokenSet::parse("VIP").unwrap(),
            consent: Some(Consent {
                source: "@form".to_owned(),
                given_at: Timestamp::from_millis(1_767_323_045_678),
            }),
            ..Lead::new(
                LeadId::MIN,
                UserId::MIN,
                None,
                Phone::from_e164("+60123456789").unwrap(),
                Timestamp::EPOCH,
            )
        };
        let customs: Vec<(String, String)> = (0..CUSTOM_COLUMNS_MAX)
            .map(|at| (format!("k{at}"), "v".to_owned()))
            .collect();
        let filling: Vec<_> = customs
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        for custom in [
            &[("City", "KL"), ("empty", ""), ("blank", " x\n"), ("Kod-1", "+1")][..],
            &[("zz", "beyond")],
            &[],
        ] {
            let kept = lead(custom);
            let mut sheet = LeadSheet::default();
            sheet.add(&kept);
            sheet.add(&lead(&filling));
            let file = encode(&[sheet.header(), sheet.row(&kept)]);
            let mut reader = LeadReader::new(file.as_slice(), LeadDevice::default(), ROW_BYTES_MAX).unwrap();
            let read = reader.next_row().unwrap().unwrap().draft.unwrap();
            assert!(read == LeadDraft::from(&kept), "{custom:?}");
        }
    }
}
