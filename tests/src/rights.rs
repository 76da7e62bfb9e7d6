//! The rights that the chart gives to the operator, and nothing else.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    authorization::v1::SubjectAccessReview,
    core::v1::ServiceAccount,
    rbac::v1::{ClusterRole, PolicyRule, Role},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::Kubeconfig,
};
use serde_json::{Value, json};
use xtask::cmd;

use crate::{Server, examples, place::apply, server::repository, wait};

/// The release is called like the chart, so everything in it is called `lethe`.
pub const ACCOUNT: &str = "lethe";

/// Where an operator works, and so which rights it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// In the namespace that it runs in, by a Role: `watchNamespaces` names it.
    Namespace,
    /// In all namespaces, by a ClusterRole, as the chart's values stand.
    Cluster,
}

/// What the chart renders for an operator that runs in namespace `home`.
///
/// # Errors
/// If Helm refuses the chart.
pub fn render(server: &Server, home: &str, reach: Reach) -> Result<Vec<Value>> {
    render_with(server, home, reach, &[])
}

/// The same with further values, as `--set` takes them.
///
/// # Errors
/// If Helm refuses the chart.
pub fn render_with(server: &Server, home: &str, reach: Reach, values: &[&str]) -> Result<Vec<Value>> {
    let chart = repository("charts/lethe");
    let mut helm = Command::new(&server.helm);
    helm.args(["template", "lethe"]).arg(chart).args(["--namespace", home]);
    for value in values {
        helm.args(["--set", value]);
    }
    if reach == Reach::Namespace {
        helm.arg("--set").arg(format!("watchNamespaces={{{home}}}"));
    }
    examples::documents(&cmd::output(&mut helm)?)
}

/// Gives a service account in namespace `home` the rights that the chart gives to it.
///
/// # Errors
/// If the chart cannot be rendered, or the API server refuses what it rendered.
pub async fn grant(server: &Server, home: &str, reach: Reach) -> Result<()> {
    grant_with(server, home, reach, &[]).await
}

/// The same of a chart with further values, as `--set` takes them.
///
/// # Errors
/// If the chart cannot be rendered, or the API server refuses what it rendered.
pub async fn grant_with(server: &Server, home: &str, reach: Reach, values: &[&str]) -> Result<()> {
    let kinds = ["ServiceAccount", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"];
    for manifest in render_with(server, home, reach, values)? {
        if kinds.contains(&manifest["kind"].as_str().unwrap_or_default()) {
            apply(&server.client, manifest["metadata"]["namespace"].as_str(), &manifest).await?;
        }
    }
    Ok(())
}

/// Takes one right away from the operator in namespace `home`. Returns once the API server goes by that. [`grant`] gives it
/// back.
///
/// # Errors
/// If it has not got it, or the API server goes on allowing it.
pub async fn take_away(
    server: &Server,
    home: &str,
    (verb, group, resource): (&str, &str, &str),
) -> Result<()> {
    let roles: Api<Role> = Api::namespaced(server.client.clone(), home);
    for role in roles.list(&ListParams::default()).await?.items {
        let rules = role.rules.iter().flatten().flat_map(|rule| without(rule, verb, group, resource));
        let patch = Patch::Merge(json!({"rules": rules.collect::<Vec<_>>()}));
        roles.patch(&role.name_any(), &PatchParams::default(), &patch).await?;
    }
    let wanted = json!({"namespace": home, "verb": verb, "group": group, "resource": resource});
    let user = format!("system:serviceaccount:{home}:{ACCOUNT}");
    let review: SubjectAccessReview =
        serde_json::from_value(json!({"spec": {"user": user, "resourceAttributes": wanted}}))?;
    let reviews: Api<SubjectAccessReview> = Api::all(server.client.clone());
    let allowed = async || {
        let review = reviews.create(&PostParams::default(), &review).await?;
        Ok(review.status.is_some_and(|status| status.allowed))
    };
    wait::until_answer("the right is gone", allowed, |allowed| !allowed).await?;
    Ok(())
}

/// A rule but for one verb on one resource.
fn without(rule: &PolicyRule, verb: &str, group: &str, resource: &str) -> Vec<PolicyRule> {
    let names = |list: &Option<Vec<String>>, name: &str| list.iter().flatten().any(|one| one == name);
    if !(names(&rule.api_groups, group) && names(&rule.resources, resource)) {
        return vec![rule.clone()];
    }
    let but = |list: &Vec<String>, name: &str| list.iter().filter(|one| *one != name).cloned().collect();
    let verbs: Vec<String> = but(&rule.verbs, verb);
    let others: Option<Vec<String>> = rule.resources.as_ref().map(|resources| but(resources, resource));
    let mut rules = vec![
        PolicyRule { resources: Some(vec![resource.into()]), verbs, ..rule.clone() },
        PolicyRule { resources: others, ..rule.clone() },
    ];
    rules.retain(|rule| !rule.verbs.is_empty() && rule.resources.iter().flatten().next().is_some());
    rules
}

/// The rules of all Roles in namespace `home`, and of the chart's ClusterRoles.
///
/// # Errors
/// If they cannot be listed, or are not of the kinds that this reach needs.
pub async fn rules(server: &Server, home: &str, reach: Reach) -> Result<Vec<PolicyRule>> {
    let roles: Api<Role> = Api::namespaced(server.client.clone(), home);
    let roles = roles.list(&ListParams::default()).await?.items;
    ensure!(!roles.is_empty(), "the chart made no Role");
    let selector = ListParams::default().labels("app.kubernetes.io/name=lethe");
    let everywhere = Api::<ClusterRole>::all(server.client.clone()).list(&selector).await?.items;
    ensure!(
        everywhere.is_empty() == (reach == Reach::Namespace),
        "for an operator that works in {reach:?} the chart made {} ClusterRoles",
        everywhere.len()
    );
    let rules = roles.into_iter().map(|role| role.rules).chain(everywhere.into_iter().map(|role| role.rules));
    Ok(rules.flatten().flatten().collect())
}

/// A kubeconfig for the service account.
///
/// # Errors
/// If the API server gives no token.
pub async fn kubeconfig(server: &Server, namespace: &str) -> Result<Kubeconfig> {
    kubeconfig_of(server, namespace, ACCOUNT).await
}

/// A kubeconfig for any service account.
///
/// # Errors
/// If the API server gives no token.
pub async fn kubeconfig_of(server: &Server, namespace: &str, account: &str) -> Result<Kubeconfig> {
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), namespace);
    let spec = TokenRequestSpec { expiration_seconds: Some(7200), ..Default::default() };
    let request = TokenRequest { spec, ..Default::default() };
    let answer = accounts.create_token_request(account, &PostParams::default(), &request).await?;
    let token = answer.status.context("the answer has no token")?.token;
    let admin = Kubeconfig::read_from(server.api.kubeconfig_path())?;
    let cluster = admin.clusters.first().and_then(|named| named.cluster.clone());
    let authority = cluster.and_then(|cluster| cluster.certificate_authority_data);
    let authority = authority.context("the administrator's kubeconfig names no certificate authority")?;
    let cluster = json!({"server": server.api.url(), "certificate-authority-data": authority});
    named(cluster, json!({"token": token}))
}

/// Applies the chart's admission policies.
///
/// # Errors
/// If the chart cannot be rendered, or the API server refuses what it rendered.
pub async fn admit(server: &Server, home: &str) -> Result<()> {
    for manifest in render(server, home, Reach::Cluster)? {
        if manifest["kind"].as_str().is_some_and(|kind| kind.starts_with("ValidatingAdmission")) {
            apply(&server.client, None, &manifest).await?;
        }
    }
    Ok(())
}

/// A client for a person who may do everything, as whom the administrator speaks.
///
/// # Errors
/// If the administrator's kubeconfig cannot be read.
pub async fn speak_as(server: &Server, name: &str) -> Result<Client> {
    crate::server::client(impersonating(server, name, Some("system:masters"))?).await
}

/// A client for a person who has, in one namespace, the chart's roles for people that are named (`request`, `approve`),
/// and no other right.
///
/// # Errors
/// If the chart has no such role, or the API server refuses it.
pub async fn person(server: &Server, namespace: &str, name: &str, roles: &[&str]) -> Result<Client> {
    crate::server::client(person_kubeconfig(server, namespace, name, roles).await?).await
}

/// The same as a kubeconfig, for programs.
///
/// # Errors
/// As [`person`].
pub async fn person_kubeconfig(
    server: &Server,
    namespace: &str,
    name: &str,
    roles: &[&str],
) -> Result<Kubeconfig> {
    let chart = render_with(server, namespace, Reach::Namespace, &["userRoles.create=true"])?;
    let group = "rbac.authorization.k8s.io";
    for role in roles {
        let named = |object: &&Value| {
            object["kind"] == "ClusterRole" && object["metadata"]["name"] == format!("lethe-{role}")
        };
        let rules = &chart.iter().find(named).with_context(|| format!("no role lethe-{role}"))?["rules"];
        // As a binding to the ClusterRole in this namespace would, without anything that is the whole cluster's.
        let metadata = json!({"name": format!("{name}-{role}")});
        let (version, user) =
            (format!("{group}/v1"), json!([{"apiGroup": group, "kind": "User", "name": name}]));
        let role_ref = json!({"apiGroup": group, "kind": "Role", "name": metadata["name"]});
        for manifest in [
            json!({"apiVersion": version, "kind": "Role", "metadata": metadata, "rules": rules}),
            json!({
                "apiVersion": version, "kind": "RoleBinding", "metadata": metadata, "roleRef": role_ref,
                "subjects": user,
            }),
        ] {
            apply(&server.client, namespace, &manifest).await?;
        }
    }
    impersonating(server, name, None)
}

fn impersonating(server: &Server, name: &str, group: Option<&str>) -> Result<Kubeconfig> {
    let mut kubeconfig = Kubeconfig::read_from(server.api.kubeconfig_path())?;
    let user = kubeconfig.auth_infos.first_mut().and_then(|named| named.auth_info.as_mut());
    let user = user.context("the administrator's kubeconfig has no user")?;
    user.impersonate = Some(name.into());
    user.impersonate_groups = group.map(|group| vec![group.into()]);
    Ok(kubeconfig)
}

/// A kubeconfig for a server that asks for nothing.
///
/// # Errors
/// Never, but for a mistake in here.
pub fn open_kubeconfig(url: &str) -> Result<Kubeconfig> {
    named(json!({"server": url}), json!({}))
}

fn named(cluster: Value, user: Value) -> Result<Kubeconfig> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": user}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }))?)
}

/// Writes a kubeconfig into `folder`.
///
/// # Errors
/// If it cannot be written.
pub fn write(kubeconfig: &Kubeconfig, folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    // A token is shown as it is only in here: JSON is YAML.
    std::fs::write(&path, serde_json::to_vec(kubeconfig)?)?;
    Ok(path)
}
