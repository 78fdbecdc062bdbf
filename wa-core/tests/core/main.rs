//! Integration tests of wa-core.

mod smoke;
