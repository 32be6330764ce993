//! Tariffs that are read, refused, and found by their content.

mod common;

use common::at;
use tollgate_rating::{
    Increment, Policy, Rounding, SAMPLE_TARIFF, Service, Side, Tariff, TariffError, TariffVersion,
};

/// A tariff with these rates, each given as its lines.
fn with(rates: &[&str]) -> Result<Tariff, TariffError> {
    let mut lines = vec!["name = 't'\ncurrency = 'CNY'\nrounding = 'half_up'".to_owned()];
    for (number, rate) in rates.iter().enumerate() {
        lines.push("[[rates]]".to_owned());
        for (key, value) in [
            ("name", format!("'r{number}'")),
            ("price_per_minute", "'0.1'".to_owned()),
            ("increment", "'60/60'".to_owned()),
        ] {
            if !rate.lines().any(|line| line.trim().starts_with(key)) {
                lines.push(format!("{key} = {value}"));
            }
        }
        lines.push((*rate).to_owned());
    }
    Tariff::parse(&lines.join("\n"))
}

fn refusal(rates: &[&str]) -> String {
    with(rates).expect_err("this tariff must be refused").to_string()
}

#[test]
fn the_sample_is_the_list_price() {
    let tariff = Tariff::parse(SAMPLE_TARIFF).expect("valid");
    assert_eq!((tariff.name(), tariff.currency()), ("sample", "CNY"));
    assert_eq!((tariff.policy(), tariff.rounding()), (Policy::PerLeg, Rounding::HalfUp));
    let [rate] = tariff.rates() else { panic!("one rate") };
    assert_eq!(rate.price_per_minute().to_string(), "0.18");
    assert_eq!(rate.increment(), Increment { first: 60, step: 60 });
}

#[test]
fn the_version_of_the_sample_never_changes() {
    let version = Tariff::parse(SAMPLE_TARIFF).expect("valid").version();
    assert_eq!(
        version.to_string(),
        "5a48a0cac856ce6d6a992c60a84ec752aa3a524be32e4217fc62abd031baf0a8"
    );
    assert_eq!(version.to_string().parse(), Ok(version));
    assert_eq!("xyz".parse::<TariffVersion>(), Err(TariffError::Version));
}

#[test]
fn the_canonical_form_is_fixed_to_the_byte() {
    let tariff = with(&["name = \"all\"
        applications = ['b \"q\" \\ é', 'a']
        services = ['private_ax', 'callback']
        prefixes = ['1069', '+86']
        legs = ['b', 'a']
        valid_from = 2026-01-01T00:00:00.500+08:00
        valid_to = '2027-01-01T00:00:00Z'
        price_per_minute = '0.1800'
        increment = '30/6'
        minimum_seconds = 12
        connection_fee = '0.010'"])
    .expect("valid");
    let expected = r#"# tollgate tariff, form 1
name = "t"
currency = "CNY"
policy = "per_leg"
rounding = "half_up"

[[rates]]
name = "all"
applications = ["a", "b \"q\" \\ é"]
services = ["callback", "private_ax"]
prefixes = ["+86", "1069"]
legs = ["a", "b"]
valid_from = "2025-12-31T16:00:00.5Z"
valid_to = "2027-01-01T00:00:00Z"
price_per_minute = "0.18"
increment = "30/6"
minimum_seconds = 12
connection_fee = "0.01"
"#;
    assert_eq!(tariff.canonical(), expected);
}

#[test]
fn layout_order_and_spelling_do_not_change_the_version() {
    let one = r#"
        name = "t"
        currency = "CNY"
        rounding = "half_up"
        [[rates]]
        name = "a"
        price_per_minute = "0.10"
        increment = "60/60"
        services = ["callback", "notification"]
        valid_from = "2026-01-01T00:00:00+08:00"
        [[rates]]
        name = "b"
        prefixes = ["+852", "+853"]
        price_per_minute = "1"
        increment = "6/6"
    "#;
    let other = r#"
        # Another layout.
        rounding = "half_up"
        policy = "per_leg"
        currency = "CNY"
        name = "t"
        rates = [
            { name = "b", increment = "06/6", price_per_minute = "1.000", prefixes = ["+853", "+852"], legs = [] },
            { name = "a", increment = "60/60", price_per_minute = "0.1", minimum_seconds = 0,
              connection_fee = "0", services = ["notification", "callback"], valid_from = 2025-12-31T16:00:00Z },
        ]
    "#;
    let (one, other) = (Tariff::parse(one).expect("valid"), Tariff::parse(other).expect("valid"));
    assert_eq!(one.canonical(), other.canonical());
    assert_eq!(one.version(), other.version());
}

#[test]
fn every_change_of_content_changes_the_version() {
    let base = "name = \"r0\"\nprice_per_minute = \"0.1\"\nincrement = \"60/60\"";
    let versions: Vec<_> = [
        "",
        "applications = [\"x\"]",
        "services = [\"callback\"]",
        "prefixes = [\"+86\"]",
        "legs = [\"a\"]",
        "valid_from = 2026-01-01T00:00:00Z",
        "valid_to = 2026-01-01T00:00:00Z",
        "minimum_seconds = 1",
        "connection_fee = \"0.1\"",
    ]
    .iter()
    .map(|more| with(&[&format!("{base}\n{more}")]).expect("valid").version())
    .collect();
    for (i, version) in versions.iter().enumerate() {
        assert!(!versions[..i].contains(version), "{i}");
    }
}

#[test]
fn an_unknown_key_or_value_is_refused_with_its_place() {
    for (rate, expected) in [
        ("prise = \"1\"", "prise"),
        ("services = [\"callbak\"]", "callbak"),
        ("legs = [\"c\"]", "unknown variant"),
        ("minimum_seconds = \"1\"", "invalid type"),
    ] {
        let error = with(&[rate]).expect_err(rate);
        assert!(matches!(error, TariffError::Syntax(_)), "{error}");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.to_string().contains("line"), "{error}");
    }
    for text in ["", "name = \"x\"", "[", "name = \"t\"\ncurrency = \"CNY\"\nrates = []"] {
        assert!(Tariff::parse(text).is_err(), "{text}");
    }
    let no_rounding = SAMPLE_TARIFF.replace("rounding = ", "# ");
    let error = Tariff::parse(&no_rounding).expect_err("rounding has no default");
    assert!(error.to_string().contains("rounding"), "{error}");
}

#[test]
fn everything_that_is_wrong_is_named_at_once() {
    let text = r#"
        name = "bad name"
        currency = "XYZ"
        rounding = "up"
        [[rates]]
        name = "one"
        price_per_minute = 0.18
        increment = "60"
        minimum_seconds = -1
        valid_from = "2026-01-01"
        [[rates]]
        name = "one"
        price_per_minute = "-1"
        connection_fee = "0.0000000001"
        increment = "0/60"
        prefixes = ["86x", "+86", "+86"]
        valid_from = "2026-01-01T00:00:00Z"
        valid_to = "2026-01-01T08:00:00+08:00"
    "#;
    let Err(TariffError::Inconsistent(reasons)) = Tariff::parse(text) else {
        panic!("must be inconsistent")
    };
    for expected in [
        "name must be",
        "currency must be",
        "rate one price_per_minute must be in quotes",
        "rate one increment must be",
        "rate one minimum_seconds must be",
        "rate one valid_from must be",
        "rate one has the name of another rate",
        "rate one price_per_minute must be a decimal",
        "rate one connection_fee has more than nine decimals",
        "rate one prefixes must be digits",
        "rate one prefixes names one twice",
        "rate one is never valid",
    ] {
        assert!(reasons.iter().any(|reason| reason.contains(expected)), "{expected}: {reasons:#?}");
    }
    assert_eq!(reasons.len(), 13, "{reasons:#?}");
}

#[test]
fn bad_increments_are_refused() {
    for bad in ["", "60", "60/", "/60", "0/1", "1/0", "-1/1", "60/60/60", "86401/1", "+6/6", "6 /6"]
    {
        assert!(refusal(&[&format!("increment = \"{bad}\"")]).contains("increment"), "{bad}");
    }
}

#[test]
fn rates_that_claim_the_same_leg_are_refused_by_name() {
    for pair in [
        ["", ""],
        ["services = [\"callback\", \"playback\"]", "services = [\"playback\"]"],
        ["applications = [\"x\", \"y\"]", "applications = [\"y\", \"z\"]"],
        ["prefixes = [\"+86\", \"+852\"]", "prefixes = [\"+852\"]"],
        ["legs = [\"a\"]", "legs = [\"a\", \"b\"]"],
        ["valid_to = 2026-01-01T00:00:00Z", "valid_from = 2025-12-31T23:59:59Z"],
        ["valid_from = 2026-01-01T00:00:00Z", "valid_from = 2027-01-01T00:00:00Z"],
    ] {
        let error = refusal(&pair);
        assert!(error.contains("rates r0 and r1 overlap"), "{pair:?}: {error}");
    }
}

#[test]
fn rates_that_differ_in_weight_or_time_stand_side_by_side() {
    for pair in [
        ["", "services = [\"callback\"]"],
        ["applications = [\"x\"]", "services = [\"callback\"]"],
        ["prefixes = [\"+86\"]", "prefixes = [\"+861\"]"],
        ["legs = [\"a\"]", "legs = [\"b\"]"],
        ["valid_to = 2026-01-01T00:00:00Z", "valid_from = 2026-01-01T00:00:00Z"],
    ] {
        assert!(with(&pair).is_ok(), "{pair:?}");
    }
}

#[test]
fn the_rate_that_names_most_wins() {
    let tariff = with(&[
        "name = \"any\"",
        "name = \"mainland\"\nprefixes = [\"+86\"]",
        "name = \"mobile\"\nprefixes = [\"+861\"]",
        "name = \"b\"\nlegs = [\"b\"]",
        "name = \"notify\"\nservices = [\"notification\"]",
        "name = \"shop\"\napplications = [\"shop\"]",
        "name = \"shop-mobile\"\napplications = [\"shop\"]\nprefixes = [\"+861\"]",
        "name = \"old\"\napplications = [\"shop\"]\nprefixes = [\"+8613\"]\nvalid_to = 2020-01-01T00:00:00Z",
    ])
    .expect("valid");
    let callback = Some(Service::Callback);
    let notification = Some(Service::Notification);
    for (application, service, side, number, expected) in [
        ("x", callback, Side::A, None, "any"),
        ("x", callback, Side::A, Some("+1"), "any"),
        ("x", callback, Side::A, Some("+8675528000003"), "mainland"),
        ("x", callback, Side::A, Some("+86"), "mainland"),
        ("x", callback, Side::A, Some("+8613800138000"), "mobile"),
        ("x", callback, Side::A, Some("+é"), "any"),
        ("x", callback, Side::B, Some("+8613800138000"), "b"),
        ("x", notification, Side::B, Some("+8613800138000"), "notify"),
        ("x", None, Side::A, Some("+8613800138000"), "mobile"),
        ("shop", notification, Side::B, Some("+1"), "shop"),
        ("shop", notification, Side::B, Some("+8613800138000"), "shop-mobile"),
    ] {
        let found = tariff.find(application, service, side, number, at("2026-01-01 00:00:00"));
        let found = found.map(|rate| &**rate.name());
        assert_eq!(found, Some(expected), "{application} {service:?} {side:?} {number:?}");
    }
    let old = tariff.find("shop", None, Side::A, Some("+8613"), at("2019-12-31 23:59:59"));
    assert_eq!(old.map(|rate| &**rate.name()), Some("old"));
}

#[test]
fn a_rate_applies_from_its_first_instant_until_before_its_last() {
    let tariff = with(&["valid_from = 2026-01-01T00:00:00Z\nvalid_to = 2026-02-01T00:00:00Z"])
        .expect("valid");
    for (instant, applies) in [
        ("2025-12-31 23:59:59.999", false),
        ("2026-01-01 00:00:00", true),
        ("2026-01-31 23:59:59.999", true),
        ("2026-02-01 00:00:00", false),
    ] {
        let found = tariff.find("", None, Side::A, None, at(instant));
        assert_eq!(found.is_some(), applies, "{instant}");
    }
}

#[test]
fn a_tariff_too_large_to_index_is_refused_before_it_takes_the_memory() {
    let list = |prefix: &str, count: u32| {
        (0..count).map(|n| format!("\"{prefix}{n}\"")).collect::<Vec<_>>().join(",")
    };
    let rate = format!("applications = [{}]\nprefixes = [{}]", list("x", 1001), list("+", 1000));
    assert!(refusal(&[&rate]).contains("combinations"));
}
