use super::*;

fn problems(source: &Source) -> Vec<String> {
    Settings::read(source)
        .map(|_| Vec::new())
        .unwrap_or_else(|error| error.problems)
}

#[test]
fn every_default_can_be_used() {
    let settings = Settings::read(&Source::default()).unwrap();
    assert_eq!(settings.port, 3000);
    assert!(
        matches!(&settings.database, Database::File(file) if file.path.ends_with("data/wa.db") && file.cache_kib == 64 << 10)
    );
    assert!(!settings.registration && !settings.is_hurried() && !settings.is_https());
    assert_eq!(settings.engine.reconcile_after, Duration::from_secs(90));
    assert_eq!(
        (settings.connections_max, settings.header_timeout),
        (512, Duration::from_secs(75))
    );
}

#[test]
fn all_problems_are_named_at_once_and_no_secret_is_shown() {
    let source = Source::default()
        .with("PORT", "many")
        .with("DATABASE_CACHE_KIB", "16")
        .with("TZ", "Mars/Olympus")
        .with("PACING", "fast")
        .with("REDIS_URL", "http://:hunter2@x")
        .with("DATABASE_URL", "mysql://root:hunter2@x/y")
        .with("APP_BASIC_AUTH", "ann:short")
        .with("CONNECTIONS_MAX", "0")
        .with("HEADER_TIMEOUT", "0s")
        .with("DASHBOARD_USERNAME", "the boss");
    let problems = problems(&source);
    for name in [
        "PORT",
        "DATABASE_CACHE_KIB",
        "TZ",
        "PACING",
        "DATABASE_URL",
        "REDIS_URL",
        "APP_BASIC_AUTH",
        "CONNECTIONS_MAX",
        "HEADER_TIMEOUT",
        "DASHBOARD_USERNAME",
    ] {
        assert!(
            problems.iter().any(|problem| problem.starts_with(name)),
            "{name}: {problems:?}"
        );
    }
    let shown = problems.join("\n");
    assert!(!shown.contains("hunter2") && !shown.contains("short"), "{shown}");
}

#[test]
fn the_names_in_use_today_are_accepted_and_an_empty_variable_counts_for_nothing() {
    let environment = |name: &str| match name {
        "DATABASE_URL" => Some("sqlite:/tmp/x.db".to_owned()),
        "APP_PORT" => Some("8080".to_owned()),
        "PORT" => Some(String::new()),
        "TZ" => Some("Asia/Jakarta".to_owned()),
        "WHATSAPP_WEBHOOK" => Some("https://example.com".to_owned()),
        "DASHBOARD_USERNAME" => Some("Boss".to_owned()),
        "DATABASE_CACHE_KIB" => Some("1024".to_owned()),
        _ => None,
    };
    let source = Source::gather(&SettingArgs::default(), environment).unwrap();
    let settings = Settings::read(&source).unwrap();
    assert!(
        matches!(&settings.database, Database::File(file) if file.path.ends_with("/tmp/x.db") && file.cache_kib == 1024)
    );
    assert_eq!((settings.port, settings.time_zone.name()), (8080, "Asia/Jakarta"));
    assert_eq!(settings.unused, ["WHATSAPP_WEBHOOK"]);
    assert_eq!(settings.first_admin.name, "boss");
}

#[test]
fn a_database_that_nodes_share_is_taken_by_its_address_whose_password_is_not_shown() {
    let source = Source::default()
        .with("DATABASE_URL", "postgres://wa:hunter2@db.example/wa?sslmode=require")
        .with("REDIS_URL", "redis://:hunter3@cache.example")
        .with("DATABASE_SCHEMA", "sales")
        .with("NODE_NAME", "a/b");
    let settings = Settings::read(&source).unwrap();
    let Database::Postgres(postgres) = &settings.database else {
        panic!("{settings:?}")
    };
    assert_eq!((postgres.schema.as_str(), postgres.connections), ("sales", 10));
    assert!(settings.is_shared());
    assert_eq!(settings.spool(), std::path::Path::new("./data/imports/612f62"));
    let shown = format!("{settings:?} {source:?}");
    assert!(!shown.contains("hunter"), "{shown}");
    let odd = Source::default().with("DATABASE_SCHEMA", "a; DROP TABLE x");
    assert!(problems(&odd)[0].starts_with("DATABASE_SCHEMA"));
}

#[test]
fn older_names_are_accepted_as_flags_and_in_files_too() {
    use clap::{Args as _, FromArgMatches as _};
    let command = SettingArgs::augment_args(clap::Command::new("test"));
    let matches = command.get_matches_from(["test", "--db-uri", "sqlite:/tmp/y.db", "--app-port", "81"]);
    let args = SettingArgs::from_arg_matches(&matches).unwrap();
    let settings = Settings::read(&Source::gather(&args, |_| None).unwrap()).unwrap();
    assert!(matches!(&settings.database, Database::File(file) if file.path.ends_with("tmp/y.db")));
    assert_eq!(settings.port, 81);
}

#[test]
fn no_two_settings_share_a_name() {
    let mut names: Vec<_> = table::TABLE
        .iter()
        .flat_map(|entry| std::iter::once(entry.name).chain(entry.aliases.iter().copied()))
        .collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn caps_and_the_ramp_of_new_devices_are_read_and_what_they_cannot_be_is_said() {
    use wa_core::domain::pacing::Priority;
    let ramp = |source: &Source| {
        let policy = Settings::read(source).unwrap().engine.pacing;
        policy.warm_up(Priority::Campaign).cloned()
    };
    assert_eq!(ramp(&Source::default()), None);
    let cautious = ramp(&Source::default().with("WARM_UP", "cautious")).unwrap();
    assert_eq!(cautious.day_cap(0), Some(20));
    let own = ramp(&Source::default().with("WARM_UP", "5, 10")).unwrap();
    assert_eq!([0, 1, 2].map(|day| own.day_cap(day)), [Some(5), Some(10), None]);
    let capped = Source::default().with("HOUR_CAP", "7").with("DAY_CAP", "9");
    let caps = Settings::read(&capped).unwrap().engine.pacing.default_caps();
    assert_eq!((caps.hour_max(), caps.day_max()), (7, 9));
    for (name, text) in [
        ("WARM_UP", "10,5"),
        ("WARM_UP", "soon"),
        ("COLD_DAY_CAP", "0"),
        ("COLD_DAY_CAP", "few"),
        ("COLD_RAMP", "10,5"),
        ("WARM_UP", ""),
        ("HOUR_CAP", "0"),
        ("DAY_CAP", "x"),
    ] {
        let read = Settings::read(&Source::default().with(name, text));
        match read {
            // An empty variable counts for nothing.
            Ok(settings) => assert!(text.is_empty() && settings.engine.pacing.warm_up(Priority::Campaign).is_none()),
            Err(error) => assert!(
                error.problems.iter().any(|problem| problem.starts_with(name)),
                "{error:?}"
            ),
        }
    }
}
