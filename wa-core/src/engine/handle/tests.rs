//! The operations against the memory store, with a stub transport that does what it is told.

mod campaigns;
mod chats;
mod devices;
mod enrolments;
mod inbound;
mod leads;
mod people;
mod pool;
mod recipients;
mod sequences;
mod trace;
mod world;
