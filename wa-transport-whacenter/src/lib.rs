//! Whacenter HTTP API as a transport for wa-core.
