//! Between phone numbers and the addresses of WhatsApp.

use wa_core::domain::phone::Phone;
use whatsapp_rust::wacore_binary::JidExt;
use whatsapp_rust::{Client, Jid, anyhow};

/// The address of a phone number.
pub(crate) fn of(phone: &Phone) -> Jid {
    Jid::pn(phone.digits())
}

/// The phone number of an address, if it is one of a phone number.
pub(crate) fn phone(jid: &Jid) -> Option<Phone> {
    if !jid.is_pn() {
        return None;
    }
    Phone::from_e164(&format!("+{}", jid.user)).ok()
}

/// Whether it is the address of a person, by number or by LID, and not of a group, a channel or a bot.
pub(crate) fn is_person(jid: &Jid) -> bool {
    (jid.is_pn() || jid.is_lid()) && !jid.is_psa() && !jid.is_bot()
}

/// The phone number of a person whom WhatsApp names by one or two addresses; LIDs are looked up among what is known.
///
/// # Errors
/// What is known could not be read: whose message it is may be told later.
pub(crate) async fn phone_of(client: &Client, jid: &Jid, other: Option<&Jid>) -> anyhow::Result<Option<Phone>> {
    if let Some(phone) = phone(jid).or_else(|| other.and_then(phone)) {
        return Ok(Some(phone));
    }
    let known = client.get_lid_pn_entry(&jid.to_non_ad()).await?;
    Ok(known.and_then(|known| Phone::from_e164(&format!("+{}", known.phone_number)).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_comes_back_as_it_went() {
        let number = Phone::from_e164("+60123456789").unwrap();
        assert_eq!(of(&number).to_string(), "60123456789@s.whatsapp.net");
        assert_eq!(phone(&of(&number)), Some(number));
        assert_eq!(phone(&Jid::lid("100000012345678")), None);
    }

    #[test]
    fn groups_and_channels_are_no_persons() {
        for (jid, person) in [
            ("60123456789@s.whatsapp.net", true),
            ("60123456789:7@s.whatsapp.net", true),
            ("100000012345678@lid", true),
            ("120363000000000001@g.us", false),
            ("status@broadcast", false),
            ("120363000000000001@newsletter", false),
        ] {
            assert_eq!(is_person(&jid.parse().unwrap()), person, "{jid}");
        }
    }
}
