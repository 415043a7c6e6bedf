//! Documents that result from the answers, and documents that must stay untouched.

use super::*;

#[test]
fn the_three_answers_become_the_documented_documents() {
    let mut world = World::new();
    world.says(
        Question::Status,
        json!({
            "version": "1.2", "architecture": "arm64", "classification": "U", "k8sVersion": "v1.31", "k8sNodeStatus": "Ready",
            "zarfVersion": "v0.50", "runMode": "k8s", "systemTime": "1700000000", "labels": {"site": "north"}
        }),
    );
    world.says(
        Question::Packages,
        json!({"packages": [{
            "name": "podinfo", "version": "6.4", "status": "DEPLOY_PACKAGE_STATUS_DEPLOYED", "flavor": "upstream",
            "namespaceOverride": "apps", "annotations": {"owner": "ops"}
        }]}),
    );
    world.says(
        Question::Pulled,
        json!({"registries": [{"name": "local", "host": "127.0.0.1:31999", "packages": [{
            "repoName": "packages/podinfo", "packageName": "podinfo", "tags": [{
                "reference": "6.4-upstream", "arch": "arm64", "version": "6.4", "totalBytes": "9007199254740993",
                "pullInfo": {"downloadedBytes": "17", "status": "PULL_STATUS_PULLED"}
            }]
        }]}]}),
    );
    let written = world.poll();
    assert_eq!(written, ["put platforms/a1", "put deployments/a1:podinfo", "put packages/a1:6.4-upstream-arm64"]);
    let platform = json!({
        "agent_id": "a1", "platform_type": "uds-remote-agent", "version": "1.2", "architecture": "arm64",
        "classification": "U", "k8s_version": "v1.31", "k8s_node_status": "Ready", "zarf_version": "v0.50",
        "run_mode": "k8s", "system_time": "1700000000", "labels": {"site": "north"}, "last_seen": 1000
    });
    assert_eq!(world.document("platforms", "a1"), Some(platform));
    let deployment = json!({
        "agent_id": "a1", "package": "podinfo", "version": "6.4", "status": 2, "flavor": "upstream",
        "namespace_override": "apps", "annotations": {"owner": "ops"}, "last_seen": 1000
    });
    assert_eq!(world.document("deployments", "a1:podinfo"), Some(deployment));
    let package = json!({
        "agent_id": "a1", "registry": "127.0.0.1:31999", "package": "podinfo", "reference": "6.4-upstream",
        "arch": "arm64", "version": "6.4", "total_bytes": 9_007_199_254_740_993_i64, "pull_status": 3, "last_seen": 1000
    });
    assert_eq!(world.document("packages", "a1:6.4-upstream-arm64"), Some(package));
}

#[test]
fn changing_one_package_writes_exactly_one() {
    let mut world = World::new();
    let list = |version: &str| {
        let name = |n: usize| json!({"name": format!("p{n}"), "version": if n == 7 { version } else { "1" }});
        json!({"packages": (0..500).map(name).collect::<Vec<_>>()})
    };
    world.says(Question::Packages, list("1"));
    world.poll();
    world.says(Question::Packages, list("2"));
    assert_eq!(world.poll(), ["put deployments/a1:p7"]);
}

#[test]
fn a_clock_that_ticks_and_a_download_that_goes_on_are_no_change() {
    let mut world = World::new();
    for tick in 0..3 {
        world.says(Question::Status, json!({"version": "1.0", "systemTime": 1_700_000_000 + tick}));
        let tag = json!({"reference": "r", "arch": "amd64", "totalBytes": 100,
            "pullInfo": {"downloadedBytes": tick, "status": "PULL_STATUS_PULLING"}});
        world.says(Question::Pulled, json!({"registries": [{"packages": [{"tags": [tag]}]}]}));
        let written = world.poll();
        assert_eq!(written.len(), if tick == 0 { 3 } else { 0 }, "{written:?}");
    }
}

#[test]
fn what_the_agent_no_longer_lists_is_deleted_across_restarts_too() {
    let mut world = World::new();
    world.somebody_puts("deployments", "a1:gone", json!({"agent_id": "a1", "package": "gone"}));
    world.somebody_puts("deployments", "a1:1:theirs", json!({"agent_id": "a1:1", "package": "theirs"}));
    world.somebody_puts("deployments", "a10:other", json!({"agent_id": "a10", "package": "other"}));
    assert_eq!(world.poll(), ["put platforms/a1", "delete deployments/a1:gone", "put deployments/a1:podinfo"]);
    world.says(Question::Packages, json!({"packages": null}));
    assert_eq!(world.poll(), ["delete deployments/a1:podinfo"]);
    assert!(world.document("deployments", "a1:1:theirs").is_some());
    assert!(world.document("deployments", "a10:other").is_some());
}

#[test]
fn what_others_wrote_into_the_platform_stays() {
    let mut world = World::new();
    world.somebody_puts("platforms", "a1", json!({"latitude": 48.1, "version": "0.9"}));
    world.poll();
    let platform = world.document("platforms", "a1").expect("written");
    assert_eq!((&platform["latitude"], &platform["version"]), (&json!(48.1), &json!("1.0")));
    world.somebody_puts("platforms", "a1", json!({"version": "1.0", "latitude": 48.2}));
    let written: Vec<String> = (0..4).flat_map(|_| world.poll()).collect();
    assert_eq!(written, ["put platforms/a1"], "read again after the node refused an outdated base");
    assert_eq!(world.document("platforms", "a1").expect("there")["latitude"], json!(48.2));
}

#[test]
fn what_somebody_deletes_or_changes_is_put_right_within_a_heartbeat() {
    let mut world = World::new();
    world.poll();
    world.documents.remove(&key("deployments", "a1:podinfo"));
    let written: Vec<String> = (0..3).flat_map(|_| world.poll()).collect();
    assert_eq!(written, ["put platforms/a1", "put deployments/a1:podinfo"]);
}

#[test]
fn a_write_that_is_refused_is_tried_again_and_holds_up_no_other() {
    let mut world = World::new();
    world.refused = Some(key("deployments", "a1:podinfo"));
    world.says(Question::Packages, json!({"packages": [{"name": "podinfo"}, {"name": "zarf"}]}));
    assert_eq!(world.poll(), ["put platforms/a1", "put deployments/a1:zarf"]);
    (0..3).for_each(|_| _ = world.poll());
    assert_eq!(world.notes.len(), 1, "{:?}", world.notes);
    world.refused = None;
    assert!(world.poll().contains(&"put deployments/a1:podinfo".to_owned()));
}

#[test]
fn two_entries_with_one_id_are_one_document_in_whatever_order() {
    let mut world = World::new();
    let (one, two) = (json!({"name": "p", "version": "1"}), json!({"name": "p", "version": "2"}));
    world.says(Question::Packages, json!({"packages": [one, two]}));
    world.poll();
    world.says(Question::Packages, json!({"packages": [two, one]}));
    assert_eq!(world.poll(), Vec::<String>::new());
}

#[test]
fn an_entry_that_cannot_be_a_document_is_left_out_and_told() {
    let mut world = World::new();
    let names = [json!({}), json!({"name": "a\u{0}b"}), json!({"name": "x".repeat(600)}), json!({"name": "p"})];
    world.says(Question::Packages, json!({ "packages": names }));
    assert_eq!(world.poll(), ["put platforms/a1", "put deployments/a1:p"]);
    assert!(world.notes[0].contains("3 of them"), "{:?}", world.notes);
}
