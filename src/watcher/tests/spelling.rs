//! Every spelling of protobuf's JSON, and invalid ones.

use super::*;

#[test]
fn every_spelling_of_a_message_is_the_same_document() {
    let mut world = World::new();
    let deployed = |status: Value, rest: Value| {
        let mut package = json!({"name": "p", "status": status});
        package.as_object_mut().expect("an object").extend(rest.as_object().cloned().unwrap_or_default());
        json!({ "packages": [package] })
    };
    let pulled = |tag: Value| json!({"registries": [{"packages": [{"tags": [tag]}]}]});
    world.says(Question::Packages, deployed(json!("DEPLOY_PACKAGE_STATUS_DEPLOYED"), json!({})));
    world.says(Question::Pulled, pulled(json!({"reference": "r", "arch": "a", "totalBytes": 1000})));
    assert_eq!(world.poll().len(), 3);
    for (status, rest) in [
        (json!(2), json!({"flavor": null, "version": null})),
        (json!("2"), json!({"flavor": "", "annotations": {}})),
        (json!(2.0), json!({"namespace_override": "", "unknown": [1, {"x": 2}]})),
    ] {
        world.says(Question::Packages, deployed(status.clone(), rest));
        assert!(!world.poll().iter().any(|write| write.contains("deployments")), "{status}");
    }
    for tag in [
        json!({"reference": "r", "arch": "a", "totalBytes": "1000", "pullInfo": null}),
        json!({"reference": "r", "arch": "a", "total_bytes": 1e3, "pull_info": {"status": "PULL_STATUS_UNSPECIFIED"}}),
        json!({"reference": "r", "arch": "a", "totalBytes": "1e3", "pullInfo": {"status": 0}, "version": ""}),
    ] {
        world.says(Question::Pulled, pulled(tag.clone()));
        assert!(!world.poll().iter().any(|write| write.contains("packages/")), "{tag}");
    }
}

#[test]
fn a_name_that_is_not_known_stays_a_name() {
    let mut world = World::new();
    world.says(Question::Packages, json!({"packages": [{"name": "p", "status": "DEPLOYED_AND_HAPPY"}]}));
    world.poll();
    assert_eq!(world.document("deployments", "a1:p").expect("there")["status"], json!("DEPLOYED_AND_HAPPY"));
}

#[test]
fn an_empty_answer_is_an_agent_without_packages() {
    let mut world = World::new();
    world.poll();
    for answer in [json!({}), json!({"packages": []}), json!({"packages": null})] {
        world.says(Question::Packages, answer);
        world.poll();
        assert_eq!(world.document("deployments", "a1:podinfo"), None);
    }
}

#[test]
fn an_answer_that_is_not_the_message_changes_nothing() {
    let mut world = World::new();
    world.poll();
    let before = world.documents.clone();
    let many: Vec<Value> = (0..5_000).map(|n| json!({"name": n.to_string()})).collect();
    for lie in [
        "",
        "<html>",
        "null",
        "[]",
        "\"packages\"",
        "{\"packages\": {}}",
        "{\"packages\": [7]}",
        "{\"packages\": [{\"name\": 7}]}",
        "{\"packages\": [{\"name\": \"p\", \"status\": []}]}",
        "{\"packages\": [{\"name\": \"p\", \"annotations\": [\"x\"]}]}",
        "{\"packages\": [{\"name\": \"p\", \"annotations\": {\"x\": {\"y\": 1}}}]}",
        "{\"packages\": [{\"name\": \"podinfo\"}",
        "{\"packages\": []} trailing",
        &json!({ "packages": many }).to_string(),
        &"[".repeat(100_000),
    ] {
        world.answers.insert(Question::Packages, lie.into());
        let written = world.poll();
        assert!(!written.iter().any(|write| write.contains("deployments")), "{lie:.60}: {written:?}");
    }
    for lie in ["{\"registries\": [{\"packages\": [{\"tags\": [{\"totalBytes\": \"much\"}]}]}]}", "{\"registries\": 1}"]
    {
        world.answers.insert(Question::Pulled, lie.into());
        world.poll();
    }
    for lie in ["{\"version\": {}}", "{\"labels\": []}", "7"] {
        world.answers.insert(Question::Status, lie.into());
        world.poll();
    }
    let lasting = |documents: &BTreeMap<Key, HeldDocument>| -> Vec<(Key, Map<String, Value>)> {
        let without = |mut fields: Map<String, Value>| {
            fields.remove("last_seen");
            fields
        };
        documents.iter().map(|(key, held)| (key.clone(), without(held.fields.clone()))).collect()
    };
    assert_eq!(lasting(&world.documents), lasting(&before));
}
