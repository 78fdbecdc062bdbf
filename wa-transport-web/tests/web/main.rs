//! The WhatsApp Web transport: its storage against the client's own, and its promises.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod backend;
mod campaign;
mod chats;
mod clock;
mod conversations;
mod faults;
mod inbound;
mod linking;
mod restrictions;
mod rig;
mod sending;
mod stage;
mod town;
mod watch;
