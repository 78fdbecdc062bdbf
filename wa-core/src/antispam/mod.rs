//! What makes a text sent to many read like a text written to one: greetings, choices, and the opt-in randomizer.
//!
//! [`render`](fn@render::render) is the one pipeline from a template to the text that a lead receives.

pub mod greeting;
pub mod homoglyph;
pub mod protect;
pub mod randomizer;
pub mod render;
