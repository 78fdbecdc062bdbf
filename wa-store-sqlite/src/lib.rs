//! SQLite store for wa-core.
