//! The real router on loopback, called as clients call it.

mod access;
mod shape;
mod support;
