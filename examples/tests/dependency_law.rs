//! Which crate may know which.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1"])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    packages
        .iter()
        .map(|package| {
            let normal = package["dependencies"].as_array().expect("dependencies");
            let names = normal
                .iter()
                .filter(|dependency| dependency["kind"].is_null())
                .map(|dependency| dependency["name"].as_str().expect("a name").to_owned())
                .collect();
            (package["name"].as_str().expect("a name").to_owned(), names)
        })
        .collect()
}

#[test]
fn the_core_knows_no_database_no_http_and_no_bus() {
    let all = dependencies();
    let core = &all["wa-core"];
    for banned in ["sqlx", "reqwest", "axum", "redis", "hyper", "tower-http"] {
        assert!(!core.contains(banned), "wa-core depends on {banned}");
    }
    assert!(
        core.iter().all(|name| !all.contains_key(name)),
        "wa-core depends on another crate of ours: {core:?}"
    );
}

#[test]
fn stores_transports_and_buses_depend_on_the_core_alone_among_ours() {
    let all = dependencies();
    let parts: Vec<_> = all
        .keys()
        .filter(|name| {
            ["wa-store-", "wa-transport-", "wa-bus-"]
                .iter()
                .any(|kind| name.starts_with(kind))
        })
        .collect();
    assert!(parts.len() >= 3, "the stores and transports are found: {parts:?}");
    for part in parts {
        let ours: BTreeSet<_> = all[part]
            .iter()
            .filter(|name| all.contains_key(*name))
            .cloned()
            .collect();
        assert_eq!(ours, BTreeSet::from(["wa-core".to_owned()]), "{part}");
    }
}

#[test]
fn nothing_but_the_server_and_the_examples_depends_on_a_store_or_a_transport() {
    for (name, dependencies) in dependencies() {
        if name == "wa-server-example" || name == "wa-examples" {
            continue;
        }
        let bad: Vec<_> = dependencies
            .iter()
            .filter(|dependency| dependency.starts_with("wa-") && *dependency != "wa-core")
            .collect();
        assert!(bad.is_empty(), "{name} depends on {bad:?}");
    }
}

/// The normal and build dependencies of a package with the features that they are built with, one crate a line.
fn features(package: &str, more: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "normal,build",
            "--prefix",
            "none",
        ])
        .args(["--format", "{p} {f}", "-p", package])
        .args(more)
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("names of crates are UTF-8")
}

#[test]
fn the_server_knows_the_simulated_whatsapp_through_its_demonstration_alone() {
    assert!(features("wa-server-example", &[]).contains("wa-loopback"));
    assert!(!features("wa-server-example", &["--no-default-features"]).contains("wa-loopback"));
}

#[test]
fn no_program_is_built_without_the_check_of_whatsapps_certificates() {
    let dangers = ["danger-skip-cert-chain-verify", "danger-skip-tls-verify"];
    for program in ["wa-server-example", "wa-examples"] {
        for more in [&[][..], &["--all-features"]] {
            let features = features(program, more);
            for danger in dangers {
                assert!(!features.contains(danger), "{program} {more:?} is built with {danger}");
            }
        }
    }
    let for_tests = features("wa-loopback", &["--features", "pairing"]);
    assert!(for_tests.contains(dangers[0]), "the feature is found where it is on");
}
