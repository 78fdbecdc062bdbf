//! The suite that every transport must pass.
//!
//! An author implements [`TransportFixture`]: a fresh transport, a device, and a fake vendor that does what a
//! [`Behaviour`] says. [`transport_conformance!`](crate::transport_conformance) turns the case table into named tests.
//! For vendors that speak HTTP, [`ScriptedGateway`] is the fake vendor; only the bodies of its answers are the author's.
//!
//! ```ignore
//! wa_core::transport_conformance!(MyFixture);
//! ```
//!
//! What the suite cannot show from outside, an author ensures by construction: that no proxy is taken from the
//! environment, and that the connection goes to an address that was vetted.

pub mod cases;
mod gateway;

use std::future::Future;
use std::time::Duration;

use async_trait::async_trait;

pub use self::gateway::{GatewayAnswer, GatewayRequest, ScriptedGateway};
use crate::transport::{NotSentKind, Transport, TransportDevice};

/// What the fake vendor does with whatever arrives from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// Takes the message as documented.
    Accept,
    /// Takes it, a moment later.
    AcceptSlowly,
    /// Takes it, keeps the connection, and closes it when another request begins on it: what a transport meets that reuses
    /// a connection at the end of the time that the vendor keeps idle ones.
    AcceptThenClose,
    /// Sends the body of an acceptance under HTTP 500, or what comes nearest to it.
    AcceptUnderErrorStatus,
    /// Refuses as the entry of [`TransportFixture::refusals`] says.
    Refuse(usize),
    /// Refuses and repeats the credential, the recipient and the text in its reason.
    RefuseEchoing,
    /// Reads the request and never answers.
    Hang,
    /// Begins the answer and lets bytes trickle for ever.
    Trickle,
    /// Sends an answer without end, as fast as it is read.
    Flood,
    /// Closes the connection without reading.
    CutBeforeReading,
    /// Reads the whole request and closes the connection.
    CutAfterReading,
    /// Closes the connection in the middle of an acceptance.
    CutAnswering,
    /// Answers in success something that is not the vendor's.
    Garbage,
    /// Answers HTTP 503 with a page for people.
    ServerError,
    /// Answers with a redirect to itself that keeps method and body.
    Redirect,
    /// Nobody listens.
    Unreachable,
    /// Reports the message asked for as sent.
    ReportFound,
    /// Reports the message asked for as given up.
    ReportDead,
    /// Reports in success that there is no such message.
    ReportEmpty,
    /// Reports another message than the one asked for.
    ReportForeign,
    /// Sends the body of an empty report under HTTP 500.
    ReportEmptyUnderErrorStatus,
}

/// A refusal that the vendor documents, and how the transport must name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DocumentedRefusal {
    /// What the vendor says, for the messages of the suite.
    pub name: &'static str,
    /// The kind expected.
    pub kind: NotSentKind,
}

/// A transport under test, with the fake vendor that it speaks to.
#[async_trait]
pub trait TransportFixture: Sized + Send + Sync + 'static {
    /// A fresh transport and a fresh vendor that behaves as [`Behaviour::Accept`].
    async fn start() -> Self;

    /// The transport.
    fn transport(&self) -> &dyn Transport;

    /// A device with a credential that the vendor knows, directed at the fake vendor as it behaves now.
    fn device(&self) -> TransportDevice;

    /// Devices that cannot work, each with the field that `check_device` must name.
    fn invalid_devices(&self) -> Vec<(&'static str, TransportDevice)>;

    /// The documented refusals; [`Behaviour::Refuse`] counts through them.
    fn refusals(&self) -> Vec<DocumentedRefusal>;

    /// Whether the fake vendor can behave so. Only what makes no sense for the vendor may be left out, such as a
    /// connection that is cut where there is no connection.
    fn supports(&self, behaviour: Behaviour) -> bool;

    /// Makes the vendor behave so from now on.
    fn script(&self, behaviour: Behaviour);

    /// How many requests reached the vendor so far; a connection that it cut unread counts as one.
    fn requests(&self) -> usize;

    /// Returns as soon as [`requests`](Self::requests) is at least `count`.
    async fn arrived(&self, count: usize);

    /// Returns as soon as the transport has given up the connection that the vendor left hanging.
    async fn given_up(&self);
}

/// The time-out of sends that are expected to run into it.
pub const TIMEOUT_SHORT: Duration = Duration::from_millis(300);

/// The time-out of all other sends.
pub const TIMEOUT_LONG: Duration = Duration::from_secs(20);

/// How much later than its time-out a send may return, for machines that are busy with other tests.
pub const GRACE: Duration = Duration::from_secs(3);

/// Runs one case on a runtime of its own.
///
/// # Panics
/// When the case fails, or when the operating system gives no runtime.
pub fn run(case: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("the operating system gives a runtime")
        .block_on(case);
}

/// Makes the case table and the macro of the same cases, so that none can be forgotten.
macro_rules! case_table {
    ($d:tt $($name:ident,)+) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$(stringify!($name)),+];

        /// Makes a named test of each case of the transport suite, for one
        /// [`TransportFixture`](crate::conformance::transport::TransportFixture).
        #[macro_export]
        macro_rules! transport_conformance {
            ($d fixture:ty) => {
                $(
                    #[test]
                    fn $name() {
                        $d crate::conformance::transport::run(
                            $d crate::conformance::transport::cases::$name::<$d fixture>()
                        );
                    }
                )+
            };
        }
    };
}

case_table! { $
    an_accepted_message_is_ok_after_one_request,
    a_slow_acceptance_is_an_acceptance,
    a_connection_closed_after_an_answer_does_not_put_the_next_message_in_doubt,
    many_messages_at_once_are_one_request_each,
    an_acceptance_under_an_error_status_is_in_doubt,
    every_documented_refusal_is_not_sent_after_one_request,
    a_vendor_that_nobody_can_reach_has_not_sent,
    a_hanging_vendor_is_in_doubt_within_the_timeout,
    an_answer_that_trickles_is_in_doubt_within_the_timeout,
    an_answer_without_end_is_in_doubt_before_the_timeout,
    a_connection_cut_before_reading_is_no_success,
    a_connection_cut_after_reading_is_in_doubt,
    an_answer_cut_in_the_middle_is_in_doubt,
    an_answer_that_cannot_be_understood_is_in_doubt,
    a_server_error_without_a_reason_is_in_doubt,
    a_redirect_is_not_followed,
    a_dropped_send_gives_up_the_connection_and_does_not_come_back,
    a_send_that_was_never_polled_makes_no_request,
    the_message_id_is_a_function_of_the_attempt_alone,
    capabilities_agree_with_the_faces_and_with_themselves,
    devices_that_can_work_are_told_from_those_that_cannot,
    a_message_that_cannot_be_carried_is_refused_without_a_request,
    preparing_fails_only_as_not_sent,
    nothing_secret_is_shown,
    a_lookup_finds_only_the_message_asked_for,
    a_lookup_says_not_found_only_for_a_clean_empty_report,
    a_probe_answers_or_fails_as_not_sent_within_the_timeout,
    callbacks_of_any_content_are_decoded_or_refused,
}

#[cfg(test)]
mod mutants;
#[cfg(test)]
mod stub;
