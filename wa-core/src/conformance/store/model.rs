//! Random operations on the store and on the memory store agree.
