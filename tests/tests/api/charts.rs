//! The charts as people install them: whether Helm and the API server take what they render, with every switch as
//! it stands and with every switch on, and whether the alerts in them fire when they should.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use lethe_tests::{Server, World, examples, operator::Operator, server::repository};
use serde_json::Value;
use xtask::{cmd, setup};

/// Every chart, without and with the values that turn everything on, and with a store in a bucket.
const VARIANTS: [(&str, Option<&str>); 4] = [
    ("lethe-crds", None),
    ("lethe", None),
    ("lethe", Some("ci/everything-values.yaml")),
    ("lethe", Some("ci/bucket-values.yaml")),
];

pub async fn the_api_server_takes_what_the_charts_render(world: &World) -> Result<()> {
    let server = &*world.server;
    define_monitoring(server)?;
    let folder = tempfile::tempdir()?;
    for (chart, values) in VARIANTS {
        let chart = Chart { server, namespace: &world.namespace, name: chart, values };
        let tried = chart.helm(&["lint", "--strict"], false).and_then(|_| {
            // The tests have already applied the custom resources.
            chart.helm(&["install", "--dry-run=server", "--take-ownership"], true)?;
            let rendered = folder.path().join("rendered.yaml");
            fs::write(&rendered, chart.helm(&["template"], true)?)?;
            dry_run(server, &rendered)
        });
        tried.with_context(|| format!("chart {} with values {values:?}", chart.name))?;
    }
    Ok(())
}

pub async fn values_that_no_operator_could_work_with_are_refused(world: &World) -> Result<()> {
    let chart = Chart { server: &world.server, namespace: &world.namespace, name: "lethe", values: None };
    let cases = [
        ("replica=2", "replica"),
        ("replicas=none", "replicas"),
        ("image.digest=latest", "digest"),
        ("store.uri=file:///elsewhere", "no pod would find the store"),
        ("evidence.trustedKeysConfigMap=lethe-trusted-keys", "signingKeySecret"),
        ("auditLog.enabled=true", "needs evidence.signingKeySecret"),
        (
            "auditLog.enabled=true,evidence.signingKeySecret=key,auditLog.uri=file:///elsewhere/log",
            "on no volume that the operator mounts",
        ),
        ("metrics.service=false,metrics.serviceMonitor.enabled=true", "needs metrics.service"),
        (
            "store.persistence.create=true,store.volume.emptyDir.medium=Memory",
            "to be a persistentVolumeClaim",
        ),
    ];
    for (values, words) in cases {
        let refused = match chart.helm(&["template", "--set", values], true) {
            Ok(_) => anyhow::bail!("{values} is accepted"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(refused.contains(words), "{values}: expected {words:?} in {refused}");
    }
    Ok(())
}

pub async fn every_replica_has_an_identity_of_its_own(world: &World) -> Result<()> {
    let container = container_of_the_operator(world, "--set=replicas=2")?;
    let args = container["args"].as_array().cloned().unwrap_or_default();
    ensure!(args.iter().any(|arg| arg == "--identity=$(POD_NAME)"), "{args:?}");
    let named = variable(&container, |one| one["name"] == "POD_NAME").context("no POD_NAME")?;
    ensure!(named["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name", "{named}");
    Ok(())
}

pub async fn the_operator_tells_how_much_memory_its_container_may_have(world: &World) -> Result<()> {
    let container = container_of_the_operator(world, "--set=replicas=1")?;
    let is_limit = |one: &Value| one["valueFrom"]["resourceFieldRef"]["resource"] == "limits.memory";
    let limit = variable(&container, is_limit).context("nothing has the limit")?;
    let name = limit["name"].as_str().context("no name")?.to_owned();
    let mut launch = world.launch().await?;
    launch.env.insert(name, "268435456".into());
    let operator = Operator::start(&launch)?;
    let is_told = |text: &str| text.contains("lethe_memory_limit_bytes 268435456\n");
    operator.metrics_until("it tells its limit", is_told).await.map(|_| ())
}

/// As the chart renders it with this flag.
fn container_of_the_operator(world: &World, flag: &str) -> Result<Value> {
    let chart = Chart { server: &world.server, namespace: &world.namespace, name: "lethe", values: None };
    let mut rendered = examples::documents(&chart.helm(&["template", flag], true)?)?.into_iter();
    let mut operator = rendered.find(|object| object["kind"] == "Deployment").context("no Deployment")?;
    Ok(operator["spec"]["template"]["spec"]["containers"][0].take())
}

fn variable(container: &Value, is_it: impl Fn(&Value) -> bool) -> Option<&Value> {
    container["env"].as_array()?.iter().find(|one| is_it(one))
}

pub async fn alerts_fire_when_their_tests_say_so(world: &World) -> Result<()> {
    let chart = Chart { server: &world.server, namespace: &world.namespace, name: "lethe", values: None };
    let rendered = chart.helm(&["template", "--set=metrics.prometheusRule.enabled=true"], true)?;
    let rule = examples::documents(&rendered)?.into_iter().find(|object| object["kind"] == "PrometheusRule");
    let rules = rule.context("the chart rendered no PrometheusRule")?["spec"].take();
    let folder = tempfile::tempdir()?;
    // What Prometheus reads is the spec; JSON is YAML.
    let file = folder.path().join("alerts.json");
    fs::write(&file, rules.to_string())?;
    let promtool = setup::prometheus::promtool()?;
    cmd::output(Command::new(&promtool).args(["check", "rules"]).arg(&file))?;

    let mut tests = Vec::new();
    for file in fs::read_dir(repository("charts/lethe/tests"))? {
        let text = fs::read_to_string(file?.path())?;
        let ours = "rule_files: [../files/alerts.yaml]";
        ensure!(text.contains(ours), "the tests of the alerts do not say {ours}");
        let test = folder.path().join("test.yaml");
        fs::write(&test, text.replace(ours, "rule_files: [alerts.json]"))?;
        cmd::output(Command::new(&promtool).args(["test", "rules"]).arg(&test))?;
        tests.extend(examples::documents(&text)?);
    }
    every_alert_is_tested(&rules, &tests)?;
    every_alert_names_its_page(&rules, "runbook", "docs/runbooks")?;

    let base = "--set=metrics.prometheusRule.runbooks=https://wiki.example/lethe/";
    let rendered = chart.helm(&["template", "--set=metrics.prometheusRule.enabled=true", base], true)?;
    let rule = examples::documents(&rendered)?.into_iter().find(|object| object["kind"] == "PrometheusRule");
    let rules = rule.context("the chart rendered no PrometheusRule")?["spec"].take();
    every_alert_names_its_page(&rules, "runbook_url", "https://wiki.example/lethe")
}

/// By one annotation, and no other: a pager makes a link of `runbook_url`, which a path is not.
fn every_alert_names_its_page(rules: &Value, annotation: &str, place: &str) -> Result<()> {
    let groups = rules["groups"].as_array().context("no groups of rules")?;
    for rule in groups.iter().flat_map(|group| group["rules"].as_array()).flatten() {
        let name = rule["alert"].as_str().context("a rule that is no alert")?;
        let annotations = rule["annotations"].as_object().context("no annotations")?;
        let found: Vec<_> = annotations.iter().filter(|(name, _)| name.starts_with("runbook")).collect();
        let page = Value::from(format!("{place}/{name}.md"));
        ensure!(found == [(&annotation.to_owned(), &page)], "{name}: {found:?}");
    }
    Ok(())
}

/// Both when it should fire and when it should not; and whoever is told finds a page.
fn every_alert_is_tested(rules: &Value, tests: &[Value]) -> Result<()> {
    let groups = rules["groups"].as_array().context("no groups of rules")?;
    let names: Vec<_> = groups
        .iter()
        .flat_map(|group| group["rules"].as_array())
        .flatten()
        .map(|rule| &rule["alert"])
        .collect();
    ensure!(!names.is_empty(), "there are no alerts");
    let expected: Vec<(&Value, bool)> = tests
        .iter()
        .flat_map(|file| file["tests"].as_array())
        .flatten()
        .flat_map(|test| test["alert_rule_test"].as_array())
        .flatten()
        .map(|one| (&one["alertname"], one["exp_alerts"].as_array().is_some_and(|alerts| !alerts.is_empty())))
        .collect();
    for name in names {
        for (fires, how) in [(true, "fires"), (false, "does not fire")] {
            ensure!(expected.contains(&(name, fires)), "no test in which {name} {how}");
        }
        let name = name.as_str().context("a rule that is no alert")?;
        let page = repository("docs/runbooks").join(format!("{name}.md"));
        ensure!(page.is_file(), "no page {}", page.display());
    }
    Ok(())
}

/// A chart as a person would install it.
struct Chart<'a> {
    server: &'a Server,
    namespace: &'a str,
    name: &'a str,
    values: Option<&'a str>,
}

impl Chart<'_> {
    /// Runs a verb of Helm on the chart; most verbs want a name for the release.
    fn helm(&self, verb: &[&str], release: bool) -> Result<String> {
        let folder = repository("charts").join(self.name);
        let mut helm = Command::new(&self.server.helm);
        helm.arg("--kubeconfig").arg(self.server.api.kubeconfig_path()).args(verb);
        helm.args(release.then_some(self.name)).arg(&folder).args(["--namespace", self.namespace]);
        if let Some(values) = self.values {
            helm.arg("--values").arg(folder.join(values));
        }
        cmd::output(&mut helm)
    }
}

/// Everything but storing it: defaults, validation with unknown fields refused, admission.
fn dry_run(server: &Server, manifests: &Path) -> Result<()> {
    let apply =
        ["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f"];
    let manifests = manifests.to_string_lossy();
    server.api.kubectl(&[&apply[..], &[&manifests]].concat()).map(|_| ())
}

/// Makes the API server know what the Prometheus operator brings.
pub fn define_monitoring(server: &Server) -> Result<()> {
    for file in setup::prometheus::custom_resources()? {
        let file = file.to_string_lossy();
        server.api.kubectl(&["apply", "--server-side", "-f", &file])?;
        server.api.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", "-f", &file])?;
    }
    Ok(())
}
