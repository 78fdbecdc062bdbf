//! The load generator from outside, small: its sums hold, its JSON says what came of it, and nothing is left behind.

use serde_json::Value;

use crate::postgres::Server as Postgres;
use crate::server_process::DataDir;

/// Runs it on a folder with options beside those of a small load; gives what it wrote as JSON.
fn run(data: &DataDir, more: &[&str]) -> Value {
    let mut words = vec!["bench", "--json", "--devices", "9", "--latency-ms", "20"];
    words.extend_from_slice(more);
    run_words(data, &words, "9 devices")
}

/// Runs a command on a folder, which it leaves empty; gives what it wrote as JSON.
fn run_words(data: &DataDir, words: &[&str], progress: &str) -> Value {
    // Its rows must be where nobody's are, whatever the environment says.
    let environment = [
        ("DATABASE_URL", "sqlite:never.db"),
        ("TMPDIR", data.path().to_str().unwrap()),
    ];
    let output = data.command(&environment, words);
    let (out, errors) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{}\n{out}\n{errors}", output.status);
    assert!(errors.contains(progress), "progress is on standard error: {errors}");
    let left: Vec<_> = std::fs::read_dir(data.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert!(left.is_empty(), "{left:?} is left behind");
    serde_json::from_str(&out).unwrap()
}

fn number(report: &Value, path: &str) -> u64 {
    let found = report.pointer(path).and_then(Value::as_u64);
    found.unwrap_or_else(|| panic!("{path} is no number in {report}"))
}

/// What must hold of every run that came to its end.
fn check(report: &Value, leads: u64) {
    assert_eq!(report["ended"], "done");
    assert_eq!(report["adds_up"], true, "{report}");
    let ends: u64 = ["sent", "failed", "skipped", "unknown", "cancelled", "open"]
        .iter()
        .map(|name| number(report, &format!("/messages/{name}")))
        .sum();
    assert_eq!(number(report, "/messages/enqueued"), ends);
    let direct = number(report, "/bursts/taken");
    assert_eq!(number(report, "/messages/enqueued"), leads + direct);
    assert_eq!(number(report, "/messages/open"), 0);
    assert_eq!(number(report, "/gateways/twice_at_wablas"), 0);
    assert!(number(report, "/messages/sent") > leads / 2);
    for times in ["due_to_handed_over", "gateway", "settle_wait", "api"] {
        assert!(number(report, &format!("/times/{times}/count")) > 0, "{times}");
        let at = |name: &str| report["times"][times][name].as_f64().unwrap();
        assert!(at("p50_ms") <= at("p95_ms") && at("p95_ms") <= at("p99_ms") && at("p99_ms") <= at("max_ms"));
    }
    assert!(report["per_second"]["sent"].as_f64().unwrap() > 0.0);
    assert!(number(report, "/machine/memory_peak_bytes") >= number(report, "/machine/memory_begin_bytes"));
}

#[test]
fn a_load_with_bursts_faults_and_devices_that_come_and_go_adds_up() {
    let data = DataDir::new();
    let load = [
        "--leads",
        "300",
        "--campaigns",
        "3",
        "--burst",
        "5",
        "--burst-every",
        "400ms",
        "--churn",
        "240",
        "--faults",
        "60",
        "--seed",
        "3",
    ];
    let report = run(&data, &load);
    check(&report, 300);
    assert_eq!(report["asked"]["database"], "sqlite");
    assert!(number(&report, "/bursts/taken") >= 5);
    assert!(number(&report, "/gateways/faults") > 0);
    assert!(number(&report, "/churn/added") > 0);
}

#[test]
fn a_load_on_postgres_adds_up_and_its_schema_is_gone_afterwards() {
    let data = DataDir::new();
    let url = Postgres::shared().url();
    let report = run(&data, &["--leads", "120", "--campaigns", "2", "--database-url", &url]);
    check(&report, 120);
    assert_eq!(report["asked"]["database"], "postgres");
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let left: Vec<String> = runtime.block_on(async {
        let mut connection = Postgres::shared().connect().await;
        sqlx::query_scalar("SELECT nspname::text FROM pg_namespace WHERE nspname LIKE 'wa\\_bench\\_%'")
            .fetch_all(&mut connection)
            .await
            .unwrap()
    });
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn a_load_that_ends_by_time_adds_up_with_what_is_open() {
    let data = DataDir::new();
    let report = run(&data, &["--leads", "200", "--pace", "human", "--for", "3s"]);
    assert_eq!(report["ended"], "time");
    assert_eq!(report["adds_up"], true, "{report}");
    // Each device has sent at most one message, and waits at least 5 s for the next.
    assert!(number(&report, "/messages/sent") <= 9);
    assert!(number(&report, "/messages/open") > 0);
}

#[test]
fn an_option_out_of_its_range_and_a_database_of_somebody_else_are_refused_by_name() {
    let data = DataDir::new();
    for (words, said) in [
        (["bench", "--devices", "0"], ["--devices", "1..=20000"]),
        (["bench", "--campaigns", "20"], ["--campaigns", "--leads"]),
        (
            ["bench", "--database-url", "sqlite:mine.db"],
            ["--database-url", "Postgres"],
        ),
    ] {
        let mut line = words.to_vec();
        line.extend(["--leads", "10"]);
        let output = data.command(&[], &line);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{errors}");
        assert!(said.iter().all(|part| errors.contains(part)), "{errors}");
    }
    assert!(!data.path().join("mine.db").exists());
}

#[test]
fn linked_devices_all_connect_again_and_everybody_gets_both_messages() {
    let data = DataDir::new();
    let words = [
        "bench-linked",
        "--json",
        "--devices",
        "12",
        "--people",
        "2",
        "--idle",
        "2",
    ];
    let report = run_words(&data, &words, "12 devices linked");
    assert_eq!(
        (&report["adds_up"], &report["devices"]),
        (&Value::Bool(true), &Value::from(12)),
        "{report}"
    );
    for messages in ["/first/messages", "/known/messages"] {
        assert_eq!(number(&report, messages), 24);
    }
    assert!(number(&report, "/memory_linked") > number(&report, "/memory_unlinked"));
    assert!(report["known"]["cpu_ms_per_message"].as_f64().unwrap() > 0.0);
}
