//! Local time: the only place where an instant meets a time zone.
//!
//! Everything else keeps instants in UTC. A schedule names a [`LocalDate`], a [`LocalTime`] and a [`TimeZone`]; they
//! become an instant once, by [`TimeZone::instant`]. The time zone database is compiled in, so no image can lack it.

mod late;
mod local;
mod quiet;
mod zone;

pub use late::{LATE_GRACE, LatePolicy, StartDecision, lateness};
pub use local::{LocalDate, LocalTime, ParseLocalDateError, ParseLocalTimeError};
pub use quiet::{Quiet, QuietHours, QuietHoursError};
pub use zone::{ParseTimeZoneError, TimeZone};
