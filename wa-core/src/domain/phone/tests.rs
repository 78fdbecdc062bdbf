use proptest::prelude::*;
use uuid::Uuid;

use super::*;

fn parse(text: &str) -> Result<String, PhoneError> {
    Phone::parse(text, &Region::MY).map(|phone| phone.as_e164().to_owned())
}

#[test]
fn all_forms_of_one_number_are_one_recipient() {
    for text in [
        "0123456789",
        "123456789",
        "60123456789",
        "+60123456789",
        "+60 12-345 6789",
        " 012-345 6789 ",
        "(012) 345.6789",
        "+60 (0)12 345 6789",
        "0060123456789",
        "\u{202A}+60\u{A0}12\u{2011}345 6789\u{202C}",
        "'0123456789",
        "60123456789.0",
        "60123456789@c.us",
        "60123456789@s.whatsapp.net",
        "60123456789:12@s.whatsapp.net",
        "60123456789.0:3@s.whatsapp.net",
    ] {
        assert_eq!(parse(text).as_deref(), Ok("+60123456789"), "{text}");
    }
}

#[test]
fn bare_digits_that_the_region_does_not_know_are_read_with_their_country_code() {
    assert_eq!(parse("6581234567").as_deref(), Ok("+6581234567"));
    assert_eq!(parse("6281234567890").as_deref(), Ok("+6281234567890"));
    assert_eq!(
        parse("91234567"),
        Err(PhoneError::Invalid { region: Region::MY }),
        "a Singapore number without its country code"
    );
    let singapore: Region = "sg".parse().unwrap();
    assert_eq!(Phone::parse("81234567", &singapore).unwrap().as_e164(), "+6581234567");
}

#[test]
fn what_is_no_phone_number_is_refused_with_the_reason() {
    let invalid = Err(PhoneError::Invalid { region: Region::MY });
    for (text, expected) in [
        ("", Err(PhoneError::Empty)),
        (" \u{200B} ", Err(PhoneError::Empty)),
        ("abc", Err(PhoneError::NotANumber)),
        ("-", Err(PhoneError::NotANumber)),
        ("6.0123E+10", Err(PhoneError::NotANumber)),
        ("012345678 ext 9", Err(PhoneError::NotANumber)),
        ("60+123456789", Err(PhoneError::NotANumber)),
        ("ali@example.com", Err(PhoneError::NotANumber)),
        ("60123456789:x@s.whatsapp.net", Err(PhoneError::NotANumber)),
        ("120363012345678901@g.us", Err(PhoneError::NotAPerson)),
        ("123456789012345@lid", Err(PhoneError::NotAPerson)),
        ("12", invalid.clone()),
        ("+0123456789", invalid.clone()),
        ("+60123", invalid.clone()),
        ("0000000000", invalid.clone()),
        ("601234567890123456", invalid),
    ] {
        assert_eq!(parse(text), expected, "{text}");
    }
    assert_eq!(parse(&"1".repeat(PHONE_TEXT_BYTES_MAX + 1)), Err(PhoneError::TooLong));
}

#[test]
fn a_number_that_would_not_read_back_as_itself_is_refused() {
    // The numbering data takes the 8 after the country code for a trunk prefix when it comes with a plus.
    let austria: Region = "AT".parse().unwrap();
    assert_eq!(
        Phone::parse("0078720374181", &austria),
        Err(PhoneError::Invalid { region: austria })
    );
}

#[test]
fn stores_read_back_only_the_strict_form() {
    assert_eq!(Phone::from_e164("+60123456789").unwrap().digits(), "60123456789");
    for text in [
        "60123456789",
        "+60 123456789",
        "+6012345a789",
        "+0123456789",
        "+12345",
        "+1234567890123456",
        "",
        "+",
    ] {
        assert_eq!(Phone::from_e164(text), Err(PhoneError::NotE164), "{text}");
    }
    let phone: Phone = serde_json::from_str("\"+60123456789\"").unwrap();
    assert_eq!(serde_json::to_string(&phone).unwrap(), "\"+60123456789\"");
    assert!(serde_json::from_str::<Phone>("\"0123456789\"").is_err());
}

#[test]
fn debug_output_masks_the_number() {
    let debug = |text| format!("{:?}", Phone::from_e164(text).unwrap());
    assert_eq!(debug("+60123456789"), "+6012***6789");
    assert_eq!(debug("+123456789012345"), "+1234***2345");
    assert_eq!(debug("+6834123"), "+***4123");
}

#[test]
fn regions_are_read_in_either_case_and_unknown_ones_refused() {
    assert_eq!("my".parse(), Ok(Region::MY));
    for text in ["", "M", "MYS", "QQ", "é"] {
        assert_eq!(text.parse::<Region>(), Err(ParseRegionError), "{text}");
    }
    assert_eq!(serde_json::to_string(&Region::default()).unwrap(), "\"MY\"");
}

#[test]
fn a_persons_key_depends_on_the_user_and_survives_json_and_rows() {
    let seed = Seed::from_number(1);
    let phone = Phone::from_e164("+60123456789").unwrap();
    let of = |user| PersonKey::of(&seed, UserId::from_uuid(Uuid::from_u128(user)), &phone);
    assert_eq!(of(1), of(1));
    assert_ne!(of(1), of(2));
    assert_eq!(PersonKey::from_slice(of(1).as_bytes()), Some(of(1)));
    assert_eq!(PersonKey::from_slice(&[0; 15]), None);
    let json = serde_json::to_string(&of(1)).unwrap();
    assert_eq!(serde_json::from_str::<PersonKey>(&json).unwrap(), of(1));
    assert!(!json.contains("123456789"));
}

fn region() -> impl Strategy<Value = Region> {
    prop::sample::select(vec![
        "MY", "SG", "ID", "BN", "TH", "US", "BR", "MX", "AR", "IT", "DE", "GB", "IN", "CI",
    ])
    .prop_map(|text| text.parse().unwrap())
}

proptest! {
    #[test]
    fn parsing_the_normal_form_again_changes_nothing(region in region(), other in region(), text in "\\+?[0-9 -]{6,18}") {
        if let Ok(phone) = Phone::parse(&text, &region) {
            prop_assert_eq!(Phone::parse(phone.as_e164(), &region), Ok(phone));
            prop_assert_eq!(Phone::parse(phone.as_e164(), &other), Ok(phone));
            prop_assert_eq!(Phone::from_e164(phone.as_e164()), Ok(phone));
        }
    }

    #[test]
    fn malaysian_mobiles_have_one_normal_form(operator in "1[02346789]", line in "[2-9][0-9]{6}") {
        let expected = parse(&format!("+60{operator}{line}"));
        for text in [format!("0{operator}{line}"), format!("{operator}{line}"), format!("60{operator}{line}")] {
            prop_assert_eq!(parse(&text), expected.clone());
        }
    }

    #[test]
    fn no_text_makes_parsing_panic(text in "\\PC*", short in "[0-9+@:.() a-z;=-]{0,24}") {
        let _ = parse(&text);
        let _ = parse(&short);
    }

    #[test]
    fn numbers_sort_as_their_texts_do(a in "\\+[1-9][0-9]{6,14}", b in "\\+[1-9][0-9]{6,14}") {
        let (x, y) = (Phone::from_e164(&a).unwrap(), Phone::from_e164(&b).unwrap());
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
    }

    #[test]
    fn masking_hides_at_least_three_digits(text in "\\+[1-9][0-9]{6,14}") {
        let phone = Phone::from_e164(&text).unwrap();
        let shown = phone.masked().bytes().filter(u8::is_ascii_digit).count();
        prop_assert!(phone.digits().len() - shown >= 3);
    }
}
