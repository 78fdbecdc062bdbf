//! CSV as people make it, both ways; read record by record in bounded memory.

use std::io::{self, BufRead, BufReader, Read};

use csv_core::ReadRecordResult;

/// Most bytes of one record if nothing else is set: `IMPORT_ROW_BYTES_MAX`.
pub const ROW_BYTES_MAX: usize = 64 * 1_024;

/// Most columns of one record.
pub const COLUMNS_MAX: usize = 1_000;

/// The field and what is wrong with it.
pub type Refused = (String, String);

/// One record of a file.
#[derive(Debug)]
pub struct Row<T> {
    /// Its line in the file, from 1 with the header.
    pub line: u64,
    /// Where it ends in the file.
    pub bytes_read: u64,
    /// What was read from it.
    pub draft: Result<T, Refused>,
}

impl<T> Row<T> {
    /// The row with its draft as something else.
    pub fn map<U>(self, into: impl FnOnce(T) -> U) -> Row<U> {
        Row {
            line: self.line,
            bytes_read: self.bytes_read,
            draft: self.draft.map(into),
        }
    }
}

/// The records of a file: UTF-8 with or without a byte order mark, separated by `,`, `;` or tabs, its lines ended by whatever.
///
/// A record longer than the limit is refused and only its first lines are passed over: reading goes on at the line after the
/// one that opened a quotation mark which nothing closes, so that a stray one costs one row and not the rest of the file.
pub struct Records<R> {
    file: BufReader<R>,
    /// What was read and is read again, before the file goes on.
    again: Vec<u8>,
    again_at: usize,
    core: csv_core::Reader,
    separator: u8,
    /// The bytes of the record being read.
    raw: Vec<u8>,
    fields: Vec<u8>,
    ends: Vec<usize>,
    /// How many of `ends` the newest record has.
    count: usize,
    row_bytes_max: usize,
    lines: Lines,
    bytes_read: u64,
}

/// Counts lines, whichever of `\n`, `\r\n` and `\r` ends them.
#[derive(Debug, Clone, Copy)]
struct Lines {
    line: u64,
    after_return: bool,
}

impl Lines {
    fn pass(&mut self, byte: u8) {
        if byte == b'\r' || (byte == b'\n' && !self.after_return) {
            self.line += 1;
        }
        self.after_return = byte == b'\r';
    }
}

/// A quotation mark that is open where bytes end.
struct OpenQuote {
    /// The line it stands on.
    line: u64,
    /// Where the line after it begins, if there is one.
    next_line: Option<usize>,
}

impl<R: Read> Records<R> {
    /// Starts to read.
    ///
    /// # Errors
    /// The file cannot be read, as a text for people.
    pub fn new(file: R, row_bytes_max: usize) -> Result<Self, String> {
        let mut file = BufReader::new(file);
        let first =
            first_line(&mut file, row_bytes_max).map_err(|error| format!("the file cannot be read: {error}"))?;
        let separator = separator(&first);
        let marked = first.strip_prefix(b"\xEF\xBB\xBF").map(<[u8]>::to_vec);
        let mut records = Self {
            file,
            bytes_read: if marked.is_some() { 3 } else { 0 },
            again: marked.unwrap_or(first),
            again_at: 0,
            core: csv_core::Reader::new(),
            separator,
            raw: Vec::new(),
            fields: vec![0; row_bytes_max],
            ends: vec![0; COLUMNS_MAX],
            count: 0,
            row_bytes_max,
            lines: Lines {
                line: 1,
                after_return: false,
            },
        };
        records.restart();
        Ok(records)
    }

    fn restart(&mut self) {
        self.core = csv_core::ReaderBuilder::new().delimiter(self.separator).build();
        self.raw.clear();
    }

    /// Reads the next record that is not blank; its fields are then in [`fields`](Self::fields). `None` at the end.
    ///
    /// # Errors
    /// The file cannot be read on; there may be more rows.
    pub fn read(&mut self) -> io::Result<Option<Row<()>>> {
        loop {
            let Some((line, read)) = self.read_any()? else {
                return Ok(None);
            };
            let blank = read.is_ok() && self.fields().all(|field| field.trim_ascii().is_empty());
            if !blank {
                return Ok(Some(Row {
                    line,
                    bytes_read: self.bytes_read,
                    draft: read.map_err(|reason| ("row".to_owned(), reason)),
                }));
            }
        }
    }

    /// The fields of the record that was read.
    pub fn fields(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        let ends = self.ends[..self.count].iter();
        starts.zip(ends).map(|(start, end)| &self.fields[start..*end])
    }

    /// Reads a record, blank or not: the line on which it starts, and why it cannot be read.
    fn read_any(&mut self) -> io::Result<Option<(u64, Result<(), String>)>> {
        self.raw.clear();
        self.count = 0;
        let mut written = 0;
        let (result, at_end) = loop {
            let from_again = self.again_at < self.again.len();
            let input = if from_again {
                &self.again[self.again_at..]
            } else {
                fill(&mut self.file)?
            };
            let at_end = input.is_empty();
            // Never more than one byte past the limit, however much a record would swallow.
            let input = &input[..input.len().min(self.row_bytes_max + 1 - self.raw.len())];
            let (result, consumed, put, ends) =
                self.core
                    .read_record(input, &mut self.fields[written..], &mut self.ends[self.count..]);
            self.raw.extend_from_slice(&input[..consumed]);
            if from_again {
                self.again_at += consumed;
            } else {
                self.file.consume(consumed);
            }
            written += put;
            self.count += ends;
            let goes_on = matches!(result, ReadRecordResult::InputEmpty) && self.raw.len() <= self.row_bytes_max;
            if !goes_on {
                break (result, at_end);
            }
        };
        let line = self.first_line();
        let cut = match result {
            ReadRecordResult::End => {
                self.pass(self.raw.len());
                return Ok(None);
            }
            ReadRecordResult::Record if !at_end => false,
            // The end of the file ends a record too, but closes no quotation mark.
            ReadRecordResult::Record => self.open_quote().is_some(),
            _ => true,
        };
        if !cut {
            self.pass(self.raw.len());
            return Ok(Some((line, Ok(()))));
        }
        self.count = 0;
        let many = matches!(result, ReadRecordResult::OutputEndsFull);
        let quote = self.open_quote().filter(|_| !many);
        let reason = match &quote {
            Some(quote) if at_end => format!("a quotation mark is opened on line {} and never closed", quote.line),
            Some(quote) => format!(
                "a quotation mark is opened on line {} and not closed within {} bytes, the most of a row",
                quote.line, self.row_bytes_max
            ),
            None if many => format!("the row must have at most {COLUMNS_MAX} columns"),
            None => format!("the row must have at most {} bytes", self.row_bytes_max),
        };
        match quote.and_then(|quote| quote.next_line) {
            Some(next_line) => {
                let mut again = self.raw[next_line..].to_vec();
                again.extend_from_slice(&self.again[self.again_at..]);
                self.pass(next_line);
                (self.again, self.again_at) = (again, 0);
            }
            None => {
                self.pass(self.raw.len());
                self.pass_line()?;
            }
        }
        self.restart();
        Ok(Some((line, Err(reason))))
    }

    /// The line on which the record begins, after the blank lines before it.
    fn first_line(&self) -> u64 {
        let mut lines = self.lines;
        let blank = self.raw.iter().take_while(|byte| matches!(byte, b'\r' | b'\n'));
        blank.for_each(|byte| lines.pass(*byte));
        lines.line
    }

    /// Counts the first bytes of the record as read for good.
    fn pass(&mut self, bytes: usize) {
        self.bytes_read += bytes as u64;
        for byte in &self.raw[..bytes] {
            self.lines.pass(*byte);
        }
    }

    /// Passes over the rest of the line that the record was cut in.
    fn pass_line(&mut self) -> io::Result<()> {
        let is_end = |byte: &u8| matches!(byte, b'\r' | b'\n');
        if self.raw.last().is_some_and(is_end) {
            return Ok(());
        }
        loop {
            let from_again = self.again_at < self.again.len();
            let input = if from_again {
                &self.again[self.again_at..]
            } else {
                fill(&mut self.file)?
            };
            let end = input.iter().position(is_end);
            let passed = end.map_or(input.len(), |at| at + 1);
            input[..passed].iter().for_each(|byte| self.lines.pass(*byte));
            let ended = input.is_empty();
            if from_again {
                self.again_at += passed;
            } else {
                self.file.consume(passed);
            }
            self.bytes_read += passed as u64;
            if ended || end.is_some() {
                return Ok(());
            }
        }
    }

    /// The quotation mark that is open at the end of the record's bytes.
    fn open_quote(&self) -> Option<OpenQuote> {
        enum At {
            FieldStart,
            Plain,
            Quoted,
            /// After a quotation mark within quotation marks: it closes them or is the first of two.
            Closing,
        }
        let (mut at, mut lines) = (At::FieldStart, self.lines);
        let mut quote = OpenQuote {
            line: 0,
            next_line: None,
        };
        for (place, byte) in self.raw.iter().enumerate() {
            let ends_field = *byte == self.separator || matches!(byte, b'\r' | b'\n');
            at = match (at, byte) {
                (At::FieldStart, b'"') => {
                    quote = OpenQuote {
                        line: lines.line,
                        next_line: None,
                    };
                    At::Quoted
                }
                (At::Quoted, b'"') => At::Closing,
                (At::Quoted, b'\r' | b'\n') => {
                    quote.next_line = quote.next_line.or(Some(place + 1));
                    At::Quoted
                }
                (At::Quoted, _) | (At::Closing, b'"') => At::Quoted,
                _ if ends_field => At::FieldStart,
                _ => At::Plain,
            };
            lines.pass(*byte);
        }
        matches!(at, At::Quoted).then_some(quote)
    }
}

/// What is read next; nothing at the end of the file.
fn fill<R: Read>(file: &mut BufReader<R>) -> io::Result<&[u8]> {
    // The first question is asked again when a signal came in between; the second, as a rule, finds its answer in memory.
    while let Err(error) = file.fill_buf() {
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
    file.fill_buf()
}

/// The first line, of at most so many bytes.
fn first_line(file: &mut impl BufRead, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    file.take(bytes_max as u64).read_until(b'\n', &mut line)?;
    Ok(line)
}

/// What separates the columns: whatever stands most often in the first line, outside of quotation marks.
fn separator(line: &[u8]) -> u8 {
    let line = line.split(|byte| *byte == b'\r').next().unwrap_or_default();
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

/// What people call the columns that more than one kind of file has, in small letters and digits.
#[must_use]
pub fn is_name(header: &str) -> bool {
    matches!(header, "name" | "fullname" | "nama" | "contactname" | "customername")
}

/// Whether a column holds numbers of people.
#[must_use]
pub fn is_phone(header: &str) -> bool {
    matches!(
        header,
        "phone"
            | "phonenumber"
            | "mobile"
            | "mobilenumber"
            | "whatsapp"
            | "whatsappnumber"
            | "number"
            | "telefon"
            | "nomborphone"
            | "notelefon"
            | "notel"
            | "hp"
            | "nohp"
            | "contact"
    )
}

/// A header in small letters and digits, without what people put between them.
#[must_use]
pub fn squeezed(header: &str) -> String {
    header.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect()
}

/// A file with a header: its columns, then its rows.
pub struct Table<R, C> {
    records: Records<R>,
    columns: Vec<Option<C>>,
    /// Columns of the file that are not known and left out.
    pub left_out: Vec<String>,
}

impl<R: Read, C> Table<R, C> {
    /// Reads the header; a column for which there is none is left out.
    ///
    /// # Errors
    /// What is wrong with the file as a whole, for people.
    pub fn new(file: R, row_bytes_max: usize, column: impl Fn(&str) -> Option<C>) -> Result<Self, String> {
        let mut records = Records::new(file, row_bytes_max)?;
        let header = records
            .read()
            .map_err(|error| format!("the file cannot be read: {error}"))?;
        if let Some(Err((_, reason))) = header.map(|row| row.draft) {
            return Err(format!("the first line cannot be read: {reason}"));
        }
        let names: Vec<String> = records
            .fields()
            .map(|name| String::from_utf8_lossy(name).trim().to_owned())
            .collect();
        let columns: Vec<_> = names.iter().map(|name| column(name)).collect();
        let left_out = names.into_iter().zip(&columns);
        let left_out = left_out
            .filter(|(name, column)| column.is_none() && !name.is_empty())
            .map(|(name, _)| name.chars().take(50).collect())
            .take(20)
            .collect();
        Ok(Self {
            records,
            columns,
            left_out,
        })
    }

    /// Whether there is such a column.
    pub fn has(&self, wanted: impl Fn(&C) -> bool) -> bool {
        self.columns.iter().flatten().any(wanted)
    }

    /// The next row, each known cell given to `read` with its column, as a text; blank rows are passed over.
    ///
    /// # Errors
    /// The file cannot be read on; there may be more rows.
    pub fn next_row<T: Default>(
        &mut self,
        name_of: impl Fn(&C) -> String,
        mut read: impl FnMut(&mut T, &C, &str) -> Result<(), Refused>,
    ) -> io::Result<Option<Row<T>>> {
        let Some(Row {
            line,
            bytes_read,
            draft,
        }) = self.records.read()?
        else {
            return Ok(None);
        };
        let draft = draft.and_then(|()| {
            let mut into = T::default();
            for (column, bytes) in self.columns.iter().zip(self.records.fields()) {
                let Some(column) = column else { continue };
                let text =
                    std::str::from_utf8(bytes).map_err(|_| (name_of(column), "must be UTF-8 text".to_owned()))?;
                let text = bare(text);
                if !text.is_empty() {
                    read(&mut into, column, text)?;
                }
            }
            Ok(into)
        });
        Ok(Some(Row {
            line,
            bytes_read,
            draft,
        }))
    }
}

/// A text that a spreadsheet does not take for a formula; [`bare`] takes it back.
#[must_use]
pub fn plain(text: &str) -> String {
    if is_formula(text) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

fn is_formula(text: &str) -> bool {
    text.trim_start_matches('\'')
        .starts_with(['=', '+', '-', '@', '\t', '\r'])
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

/// A text without what [`plain`] put before it.
#[must_use]
pub fn bare(text: &str) -> &str {
    text.strip_prefix('\'').filter(|_| is_formula(text)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every record: its line, and its fields or the reason.
    fn records(file: &[u8], row_bytes_max: usize) -> Vec<(u64, Result<Vec<String>, String>)> {
        let mut records = Records::new(file, row_bytes_max).unwrap();
        let mut found = Vec::new();
        while let Some(row) = records.read().unwrap() {
            let fields = records
                .fields()
                .map(|field| String::from_utf8_lossy(field).into_owned());
            let fields = fields.collect();
            found.push((row.line, row.draft.map(|()| fields).map_err(|(_, reason)| reason)));
        }
        assert_eq!(records.bytes_read, file.len() as u64, "all is read once");
        found
    }

    fn texts(fields: &[&str]) -> Result<Vec<String>, String> {
        Ok(fields.iter().map(|text| (*text).to_owned()).collect())
    }

    #[test]
    fn an_open_quotation_mark_costs_one_row_and_is_told_by_its_line() {
        let rows = (0..500).fold(String::new(), |file, at| format!("{file}a{at},b\n"));
        for ending in ["\n", "\r\n", "\r"] {
            let file = format!("h,i\nx,\"y\nz\"\nfirst,\"second\n{rows}").replace('\n', ending);
            for (limit, said) in [
                (256, "line 4 and not closed within 256 bytes"),
                (1 << 20, "line 4 and never closed"),
            ] {
                let found = records(file.as_bytes(), limit);
                assert_eq!(found[1].0, 2);
                let (line, reason) = (found[2].0, found[2].1.clone().unwrap_err());
                assert_eq!((line, reason.contains(said)), (4, true), "{reason}");
                assert_eq!(found[3], (5, texts(&["a0", "b"])));
                assert_eq!((found.len(), found.last().unwrap().0), (503, 504));
            }
        }
    }

    #[test]
    fn a_quotation_mark_that_opens_below_the_start_of_its_row_is_told_by_its_own_line() {
        let found = records(b"h,i\n\"a\nb\",\"c\nd,e\n", 64);
        assert_eq!(found[1].0, 2);
        assert!(found[1].1.clone().unwrap_err().contains("line 3"), "{found:?}");
        assert_eq!(found[2], (4, texts(&["d", "e"])));
    }

    /// A file that cannot be read on after so many bytes.
    struct Broken(io::Cursor<Vec<u8>>);

    impl Read for Broken {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => Err(io::Error::other("the disk is gone")),
                read => Ok(read),
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_on_does_not_pass_for_one_that_has_ended() {
        let long = format!("h,i\na,b\n{}", "x".repeat(200));
        for (file, whole) in [
            ("h,i\na,b\nc,d", 2),
            ("h,i\na,b\n", 2),
            ("h,i\na,b\nc,\"d", 2),
            (&long, 2),
        ] {
            let file = Broken(io::Cursor::new(file.as_bytes().to_vec()));
            let mut records = Records::new(file, 100).unwrap();
            for _ in 0..whole {
                assert!(records.read().unwrap().unwrap().draft.is_ok());
            }
            assert_eq!(records.read().unwrap_err().to_string(), "the disk is gone");
        }
    }

    #[test]
    fn a_line_that_is_too_long_or_has_too_many_columns_is_passed_over() {
        let long = "x".repeat(5_000);
        let wide = ",".repeat(COLUMNS_MAX + 5);
        for bad in [long.clone(), format!("\"{long}"), wide] {
            let file = format!("h,i\n{bad}\na,b\n{bad}");
            let found = records(file.as_bytes(), if bad.len() > 4_000 { 100 } else { 4_000 });
            let lines: Vec<_> = found.iter().map(|(line, row)| (*line, row.is_ok())).collect();
            assert_eq!(lines, [(1, true), (2, false), (3, true), (4, false)], "{bad:.20}");
        }
    }

    #[test]
    fn quotation_marks_line_breaks_and_separators_within_quotes_are_read_as_they_were_written() {
        let rows = [
            vec!["a,\"b\"".to_owned(), "c\r\nd\re\nf".to_owned()],
            vec!["=1".to_owned(), " g ".to_owned()],
        ];
        let file = encode(&rows);
        let found: Vec<_> = records(&file, 64).into_iter().map(|(_, row)| row.unwrap()).collect();
        assert_eq!(found, rows);
    }

    #[test]
    fn no_cell_is_a_formula_and_what_keeps_it_from_it_is_taken_back() {
        assert_eq!(plain("=1+1"), "'=1+1");
        for text in ["=1", "'=1", "''-", "Ali", "'s", "", "\tx", "+"] {
            assert_eq!(bare(&plain(text)), text);
            assert!(!plain(text).starts_with(['=', '+', '-', '@', '\t']));
        }
    }
}
