//! The operations against the memory store, with a stub transport that does what it is told.

mod campaigns;
mod devices;
mod inbound;
mod leads;
mod people;
mod recipients;
mod world;
