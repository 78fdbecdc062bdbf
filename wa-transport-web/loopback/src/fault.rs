//! Faults by script: what the server does wrong, for whom, and at which occurrence.
//!
//! A [`Rule`] watches one kind of moment (a message, a login, a query, an upload or a download), may be narrowed to an
//! account, a device, a recipient or a namespace, and counts the moments that fit it. It fires at the occurrences that
//! it was told, counted from its installation: nothing is random, so a script gives the same faults in every run.

use std::time::Duration;

/// What goes wrong with a message that a client sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MessageFault {
    /// The message is refused with this code in the acknowledgement and reaches nobody.
    Nack(u16),
    /// The message reaches its recipients, the sender gets no acknowledgement.
    SwallowAck,
    /// The message reaches nobody and is not answered.
    Lose,
    /// The connection ends as the message comes, and the message reaches nobody.
    CutBefore,
    /// The message reaches its recipients, and the connection ends in place of the acknowledgement.
    CutAfter,
    /// Every recipient gets a message that cannot be decrypted; the acknowledgement is as usual.
    Corrupt,
    /// The message is delivered at once, the acknowledgement comes this much later.
    SlowAck(Duration),
}

/// How a login is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoginFault {
    /// The reason of the failure: 401 logged out, 402 temporarily banned, 403, 405 client outdated, 406, 500, 503, …
    pub reason: u16,
    /// Why an account is banned, with 402: 101 too many strangers, 102 blocked by many, 104 the same message to many, …
    pub code: Option<u16>,
    /// How long a ban lasts, in seconds, with 402.
    pub expire_s: Option<u64>,
    /// A text for the person.
    pub message: Option<String>,
}

impl LoginFault {
    /// A refusal with a reason alone.
    #[must_use]
    pub fn reason(reason: u16) -> Self {
        Self {
            reason,
            code: None,
            expire_s: None,
            message: None,
        }
    }

    /// A temporary ban (402) with its code, which ends after `expire_s` seconds.
    #[must_use]
    pub fn banned(code: u16, expire_s: u64) -> Self {
        Self {
            reason: 402,
            code: Some(code),
            expire_s: Some(expire_s),
            message: None,
        }
    }
}

/// What goes wrong with a query (an `iq` stanza).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum QueryFault {
    /// The query is answered with an error.
    Error {
        /// The code, for instance 429.
        code: u16,
        /// The reason, for instance `rate-overlimit`.
        text: String,
        /// After how many seconds the client may ask again, where the server says so.
        backoff_s: Option<u32>,
    },
    /// The query is carried out and not answered.
    Swallow,
    /// The answer comes this much later.
    Slow(Duration),
    /// The connection ends as the query comes.
    Cut,
}

impl QueryFault {
    /// The refusal of a client that asks too much: 429 `rate-overlimit`.
    #[must_use]
    pub fn rate_limited(backoff_s: Option<u32>) -> Self {
        Self::Error {
            code: 429,
            text: "rate-overlimit".to_owned(),
            backoff_s,
        }
    }
}

/// What goes wrong with an upload or a download.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum MediaFault {
    /// The request is answered with this HTTP status.
    Status(u16),
    /// The request fails without an answer.
    Broken,
}

/// How the server ends a stream that it opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum StreamFault {
    /// The session was replaced by another one of the same device; the connection is closed.
    Replaced,
    /// The device was removed on the phone; the connection is closed. The account keeps the device: see
    /// [`Loopback::remove_device`](crate::Loopback::remove_device).
    DeviceRemoved,
    /// An error with this code; 429 leaves the connection open, all others close it.
    Code(u16),
    /// The connection ends without a word.
    Cut,
}

#[derive(Debug, Clone)]
pub(crate) enum Kind {
    Message(MessageFault),
    Login(LoginFault),
    Query(String, QueryFault),
    Upload(MediaFault),
    Download(MediaFault),
}

/// One fault, where it applies and when; by default to the next moment that fits, whoever causes it.
#[derive(Debug, Clone)]
#[must_use]
pub struct Rule {
    pub(crate) kind: Kind,
    phone: Option<String>,
    device: Option<u16>,
    recipient: Option<String>,
    first: u64,
    count: u64,
    seen: u64,
    fired: u64,
}

/// What a rule installed at a server is found by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RuleId(pub(crate) u64);

impl Rule {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            phone: None,
            device: None,
            recipient: None,
            first: 1,
            count: 1,
            seen: 0,
            fired: 0,
        }
    }

    /// A fault of messages that carry content from person to person.
    pub fn message(fault: MessageFault) -> Self {
        Self::new(Kind::Message(fault))
    }

    /// A refused login.
    pub fn login(fault: LoginFault) -> Self {
        Self::new(Kind::Login(fault))
    }

    /// A fault of queries of the namespace `xmlns`, for instance `usync`.
    pub fn query(xmlns: impl Into<String>, fault: QueryFault) -> Self {
        Self::new(Kind::Query(xmlns.into(), fault))
    }

    /// A fault of uploads of media. Media requests name no account: [`Rule::of`] and [`Rule::device`] do not apply.
    pub fn upload(fault: MediaFault) -> Self {
        Self::new(Kind::Upload(fault))
    }

    /// A fault of downloads of media. Media requests name no account: [`Rule::of`] and [`Rule::device`] do not apply.
    pub fn download(fault: MediaFault) -> Self {
        Self::new(Kind::Download(fault))
    }

    /// Only what devices of the account `phone` do.
    pub fn of(mut self, phone: impl Into<String>) -> Self {
        self.phone = Some(phone.into());
        self
    }

    /// Only what the device `number` of an account does; 0 is the phone.
    pub fn device(mut self, number: u16) -> Self {
        self.device = Some(number);
        self
    }

    /// Only messages to the account `phone`.
    pub fn to(mut self, phone: impl Into<String>) -> Self {
        self.recipient = Some(phone.into());
        self
    }

    /// At the `n`th moment that fits, counted from 1 and from the installation of the rule.
    pub fn nth(mut self, n: u64) -> Self {
        self.first = n.max(1);
        self
    }

    /// At so many moments in a row.
    pub fn times(mut self, count: u64) -> Self {
        self.count = count;
        self
    }

    /// At every moment from the first on.
    pub fn always(mut self) -> Self {
        self.count = u64::MAX;
        self
    }
}

/// A moment at which a fault may happen.
#[derive(Clone, Copy)]
pub(crate) enum Moment<'a> {
    Message {
        phone: &'a str,
        device: u16,
        recipient: &'a str,
    },
    Login {
        phone: &'a str,
        device: u16,
    },
    Query {
        phone: &'a str,
        device: u16,
        xmlns: &'a str,
    },
    Upload,
    Download,
}

/// The rules that are installed, in the order of their installation.
#[derive(Default)]
pub(crate) struct Script {
    rules: Vec<(RuleId, Rule)>,
    made: u64,
}

impl Script {
    pub(crate) fn add(&mut self, rule: Rule) -> RuleId {
        self.made += 1;
        let id = RuleId(self.made);
        self.rules.push((id, rule));
        id
    }

    pub(crate) fn remove(&mut self, id: RuleId) {
        self.rules.retain(|(known, _)| *known != id);
    }

    pub(crate) fn fired(&self, id: RuleId) -> u64 {
        self.rules
            .iter()
            .find(|(known, _)| *known == id)
            .map_or(0, |(_, rule)| rule.fired)
    }

    /// Counts the moment with every rule that it fits; the first rule whose turn it is gives the fault.
    pub(crate) fn at(&mut self, moment: Moment<'_>) -> Option<Kind> {
        let mut fault = None;
        for (_, rule) in &mut self.rules {
            if !rule.fits(moment) {
                continue;
            }
            rule.seen += 1;
            let due = rule.seen >= rule.first && rule.seen - rule.first < rule.count;
            if due && fault.is_none() {
                rule.fired += 1;
                fault = Some(rule.kind.clone());
            }
        }
        fault
    }
}

impl Rule {
    fn fits(&self, moment: Moment<'_>) -> bool {
        let of = |phone: &str, device: u16| {
            self.phone.as_deref().is_none_or(|wanted| wanted == phone)
                && self.device.is_none_or(|wanted| wanted == device)
        };
        match (&self.kind, moment) {
            (
                Kind::Message(_),
                Moment::Message {
                    phone,
                    device,
                    recipient,
                },
            ) => of(phone, device) && self.recipient.as_deref().is_none_or(|wanted| wanted == recipient),
            (Kind::Login(_), Moment::Login { phone, device }) => of(phone, device),
            (Kind::Query(wanted, _), Moment::Query { phone, device, xmlns }) => wanted == xmlns && of(phone, device),
            (Kind::Upload(_), Moment::Upload) | (Kind::Download(_), Moment::Download) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<'a>(phone: &'a str, recipient: &'a str) -> Moment<'a> {
        Moment::Message {
            phone,
            device: 1,
            recipient,
        }
    }

    fn fires(script: &mut Script, moment: Moment<'_>) -> bool {
        script.at(moment).is_some()
    }

    #[test]
    fn a_rule_fires_at_the_occurrence_it_was_told_and_counts_only_what_fits() {
        let mut script = Script::default();
        let rule = script.add(Rule::message(MessageFault::Nack(463)).of("60111").nth(3));
        let fired: Vec<bool> = ["60111", "60222", "60111", "60111", "60111"]
            .into_iter()
            .map(|phone| fires(&mut script, message(phone, "60999")))
            .collect();
        assert_eq!(fired, [false, false, false, true, false]);
        assert_eq!(script.fired(rule), 1);
    }

    #[test]
    fn two_rules_count_the_same_moments_and_the_first_one_due_gives_the_fault() {
        let mut script = Script::default();
        let nack = script.add(Rule::message(MessageFault::Nack(429)).times(2));
        let cut = script.add(Rule::message(MessageFault::CutBefore).nth(2).times(2));
        for _ in 0..4 {
            script.at(message("60111", "60999"));
        }
        assert_eq!((script.fired(nack), script.fired(cut)), (2, 1));
    }

    #[test]
    fn a_rule_for_one_recipient_leaves_others_alone_and_one_removed_is_silent() {
        let mut script = Script::default();
        let rule = script.add(Rule::message(MessageFault::Corrupt).to("60999").always());
        assert!(!fires(&mut script, message("60111", "60888")));
        assert!(fires(&mut script, message("60111", "60999")));
        script.remove(rule);
        assert!(!fires(&mut script, message("60111", "60999")));
    }

    #[test]
    fn a_query_rule_looks_at_its_namespace() {
        let mut script = Script::default();
        script.add(Rule::query("usync", QueryFault::rate_limited(Some(30))));
        assert!(!fires(
            &mut script,
            Moment::Query {
                phone: "60111",
                device: 1,
                xmlns: "encrypt"
            }
        ));
        assert!(fires(
            &mut script,
            Moment::Query {
                phone: "60111",
                device: 1,
                xmlns: "usync"
            }
        ));
    }
}
