use super::*;

fn policy() -> HostPolicy {
    HostPolicy::new(["*.wablas.com", "*.whacenter.com"])
        .unwrap()
        .with_listed("127.0.0.1:8081, gateway.intern:9000 [::1]:7000\nplain.example.org,*.partner.example.net,sip.example.org:443")
        .unwrap()
}

fn vet(url: &str) -> Result<VettedHost, HostError> {
    policy().vet(&Url::parse(url).unwrap())
}

fn vet_public(url: &str) -> Result<VettedHost, HostError> {
    policy().vet_public_url(&Url::parse(url).unwrap())
}

#[test]
fn hosts_of_the_vendor_and_of_the_setting_are_allowed() {
    for (url, trusted) in [
        ("https://solo.wablas.com", false),
        ("https://SOLO.Wablas.COM:443/", false),
        ("https://a.b.wablas.com", false),
        ("https://api.whacenter.com/api", false),
        ("https://eu.partner.example.net", false),
        ("http://127.0.0.1:8081", true),
        ("http://2130706433:8081", true),
        ("https://127.0.0.1:8081", true),
        ("http://gateway.intern:9000/x", true),
        ("http://[::1]:7000", true),
        ("http://plain.example.org", true),
        ("https://plain.example.org", true),
        ("https://sip.example.org", true),
    ] {
        let vetted = vet(url).unwrap_or_else(|error| panic!("{url}: {error}"));
        assert_eq!(vetted.reach() == Reach::Anywhere, trusted, "{url}");
    }
}

#[test]
fn hostile_base_urls_are_refused() {
    for (url, expected) in [
        ("http://solo.wablas.com", HostError::Scheme),
        ("ftp://solo.wablas.com", HostError::Scheme),
        ("file:///etc/passwd", HostError::Scheme),
        ("gopher://127.0.0.1:8081", HostError::Scheme),
        ("http://eu.partner.example.net", HostError::Scheme),
        ("https://user@solo.wablas.com", HostError::UserInfo),
        ("https://:secret@solo.wablas.com", HostError::UserInfo),
        ("https://solo.wablas.com@evil.example", HostError::UserInfo),
        ("https://solo.wablas.com:8443", HostError::Port),
        ("https://solo.wablas.com:80", HostError::Port),
        ("http://127.0.0.1:22", HostError::Port),
        ("http://127.0.0.1", HostError::Port),
        ("http://plain.example.org:8080", HostError::Port),
        ("http://sip.example.org", HostError::Port),
        ("https://wablas.com", HostError::NotAllowed),
        ("https://evilwablas.com", HostError::NotAllowed),
        ("https://wablas.com.evil.example", HostError::NotAllowed),
        ("https://solo.wablas.com.", HostError::NotAllowed),
        ("https://solo.wablas.com.evil.example", HostError::NotAllowed),
        ("https://solo.wablas.com%2eevil.example", HostError::NotAllowed),
        ("https://solo.wablаs.com", HostError::NotAllowed),
        ("https://partner.example.net", HostError::NotAllowed),
        ("https://evil.example\\.wablas.com", HostError::NotAllowed),
        ("https://evil.example/.wablas.com", HostError::NotAllowed),
        ("https://evil.example#.wablas.com", HostError::NotAllowed),
        ("https://evil.example?.wablas.com", HostError::NotAllowed),
        ("https://localhost", HostError::NotAllowed),
        ("https://0x7f.1:22", HostError::Port),
        ("https://0177.0.0.1:22", HostError::Port),
        ("https://127.1:22", HostError::Port),
        ("https://10.0.0.1", HostError::NotAllowed),
        ("https://[::ffff:127.0.0.1]:8081", HostError::NotAllowed),
        ("https://[::]", HostError::NotAllowed),
        ("https://169.254.169.254", HostError::NotAllowed),
    ] {
        assert_eq!(vet(url).unwrap_err(), expected, "{url}");
    }
}

#[test]
fn an_ipv6_zone_and_a_broken_host_are_no_urls() {
    for text in [
        "https://[fe80::1%25eth0]",
        "https://[::1",
        "https://",
        "https://a b.wablas.com",
    ] {
        assert!(Url::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_picture_must_be_on_a_public_host() {
    for url in [
        "https://cdn.example.com/a.jpg",
        "http://cdn.example.com/a.jpg?x=1#y",
        "https://93.184.216.34/a.png",
        "https://[2606:4700::1111]/a.png",
        "http://127.0.0.1:8081/media/a.jpg",
        "http://gateway.intern:9000/a.jpg",
    ] {
        assert!(vet_public(url).is_ok(), "{url}: {:?}", vet_public(url));
    }
    for (url, expected) in [
        ("ftp://cdn.example.com/a.jpg", HostError::Scheme),
        ("file:///etc/passwd", HostError::Scheme),
        ("data:image/png;base64,AAAA", HostError::Scheme),
        ("javascript:alert(1)", HostError::Scheme),
        ("https://user:pass@cdn.example.com/a.jpg", HostError::UserInfo),
        ("https://cdn.example.com:6379/", HostError::Port),
        ("http://127.0.0.1:6379/", HostError::Port),
        ("http://localhost/a.jpg", HostError::NotPublic),
        ("http://localhost./a.jpg", HostError::NotPublic),
        ("http://a.localhost/a.jpg", HostError::NotPublic),
        ("http://intranet/a.jpg", HostError::NotPublic),
        ("http://db.internal/a.jpg", HostError::NotPublic),
        ("http://metadata.google.internal/", HostError::NotPublic),
        ("http://printer.local/a.jpg", HostError::NotPublic),
        ("http://127.0.0.1/a.jpg", HostError::NotPublic),
        ("http://127.1/a.jpg", HostError::NotPublic),
        ("http://2130706433/", HostError::NotPublic),
        ("http://0x7f000001/", HostError::NotPublic),
        ("http://0177.0.0.1/", HostError::NotPublic),
        ("http://0/", HostError::NotPublic),
        ("http://10.1.2.3/", HostError::NotPublic),
        ("http://100.100.100.200/", HostError::NotPublic),
        ("http://169.254.169.254/latest/meta-data", HostError::NotPublic),
        ("http://168.63.129.16/", HostError::NotPublic),
        ("http://[::1]/", HostError::NotPublic),
        ("http://[::ffff:10.0.0.1]/", HostError::NotPublic),
        ("http://[::ffff:a9fe:a9fe]/", HostError::NotPublic),
        ("http://[64:ff9b::7f00:1]/", HostError::NotPublic),
        ("http://[2002:7f00:1::]/", HostError::NotPublic),
        ("http://[fd00:ec2::254]/", HostError::NotPublic),
        ("http://[fe80::1]/", HostError::NotPublic),
        ("http://①②⑦.⓪.⓪.①/", HostError::NotPublic),
    ] {
        assert_eq!(vet_public(url).unwrap_err(), expected, "{url}");
    }
}

#[test]
fn special_addresses_are_not_public() {
    for text in [
        "0.0.0.0",
        "0.1.2.3",
        "10.255.255.255",
        "100.64.0.0",
        "100.127.255.255",
        "127.255.0.1",
        "169.254.0.1",
        "172.16.0.0",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.0.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:192.168.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:2::1",
        "2001:db8::1",
        "2002:c0a8:1::1",
        "3fff::1",
        "5f00::1",
        "fc00::1",
        "fdff::1",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "2606:4700::5efe:10.0.0.1",
        "2606:4700::200:5efe:192.168.1.1",
    ] {
        assert!(!is_public(text.parse().unwrap()), "{text}");
    }
    for text in [
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.1",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "168.63.129.17",
        "::ffff:1.1.1.1",
        "64:ff9b::1.1.1.1",
        "2002:101:101::1",
        "2001:200::1",
        "2606:4700::1111",
        "2a00:1450::1",
    ] {
        assert!(is_public(text.parse().unwrap()), "{text}");
    }
}

#[test]
fn one_private_address_refuses_all_of_them() {
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let vendor = vet("https://solo.wablas.com").unwrap();
    assert!(vendor.reach().admit(addresses(&["1.1.1.1", "2606:4700::1111"])).is_ok());
    assert_eq!(
        vendor.reach().admit(addresses(&["1.1.1.1", "127.0.0.1"])),
        Err(HostError::NotPublic)
    );
    assert_eq!(vendor.reach().admit(Vec::new()), Err(HostError::NoAddress));
    let listed = vet("http://gateway.intern:9000").unwrap();
    assert!(listed.reach().admit(addresses(&["10.0.0.5"])).is_ok());
}

#[test]
fn a_listed_pattern_does_not_vouch_for_private_addresses() {
    let vetted = vet("https://eu.partner.example.net").unwrap();
    assert_eq!(
        vetted.reach().admit(vec!["10.0.0.5".parse().unwrap()]),
        Err(HostError::NotPublic)
    );
}

#[test]
fn entries_that_are_no_hosts_are_refused() {
    for entry in [
        "https://a.example",
        "a.example/path",
        "*",
        "*.",
        "*.com",
        "*.10.0.0.1",
        "a.*.example",
        "u@a.example",
        "a.example:70000",
        "[::1",
        "a.example?x",
    ] {
        let error = HostPolicy::default().with_listed(entry).unwrap_err();
        assert_eq!(error.entry, entry);
    }
    assert_eq!(
        HostPolicy::default().with_listed(" , ,\n").unwrap(),
        HostPolicy::default()
    );
}
