//! What each component is told: configuration files and command lines. Pure; paths are those inside.

use serde_json::{Value, json};

use super::layout::{
    API_PORT, CLUSTER_DOMAIN, CONTAINERD, INSIDE_BIN, NODE, NODE_IP, NODE_POD_RANGE, POD_RANGE,
    SERVICE_RANGE, inside,
};

/// The sandbox image, loaded at start.
pub const PAUSE_IMAGE: &str = "lethe/pause:dev";

/// Never used, but created by the kubelet, and by default outside the cluster's directory.
const VOLUME_PLUGINS: &str = "/var/lib/kubelet/volume-plugins";

/// A program to run and keep running.
#[derive(Debug, Clone)]
pub struct Component {
    pub name: &'static str,
    pub program: String,
    pub args: Vec<String>,
}

impl Component {
    fn new(name: &'static str, args: Vec<String>) -> Self {
        Self { name, program: format!("{INSIDE_BIN}/{name}"), args }
    }
}

/// What needs nothing else to start: the store, the API server that waits for it, the container runtime.
pub fn first_components() -> Vec<Component> {
    let containerd = Component {
        name: "containerd",
        program: "containerd".into(),
        args: vec!["--config".into(), inside("containerd.toml")],
    };
    vec![etcd(), apiserver(), containerd]
}

/// What talks to the API server: started when it is ready, because waiting would cost them a back-off.
pub fn second_components() -> Vec<Component> {
    let kubeconfig = |name: &str| inside(&format!("{name}.kubeconfig"));
    let mut manager = client_flags(&kubeconfig("controller-manager"));
    manager.extend([
        flag("service-account-private-key-file", inside("pki/sa.key")),
        flag("root-ca-file", inside("pki/ca.crt")),
        flag("cluster-signing-cert-file", inside("pki/ca.crt")),
        flag("cluster-signing-key-file", inside("pki/ca.key")),
        flag("use-service-account-credentials", "true"),
        flag("leader-elect", "false"),
        flag("allocate-node-cidrs", "false"),
        flag("flex-volume-plugin-dir", VOLUME_PLUGINS),
    ]);
    let mut scheduler = client_flags(&kubeconfig("scheduler"));
    scheduler.push(flag("leader-elect", "false"));
    let dns = Component {
        name: "coredns",
        program: inside("coredns"),
        args: vec!["-conf".into(), inside("Corefile")],
    };
    vec![
        dns,
        Component::new("kubelet", kubelet_flags()),
        Component::new("kube-controller-manager", manager),
        Component::new("kube-scheduler", scheduler),
        Component::new("kube-proxy", proxy_flags(&kubeconfig("proxy"))),
    ]
}

fn etcd() -> Component {
    let url = "http://127.0.0.1:2379";
    Component::new(
        "etcd",
        vec![
            flag("data-dir", inside("etcd")),
            // The cluster does not outlive the machine: nothing to save from a power cut.
            "--unsafe-no-fsync".into(),
            flag("listen-client-urls", url),
            flag("advertise-client-urls", url),
        ],
    )
}

fn apiserver() -> Component {
    let pki = |file: &str| inside(&format!("pki/{file}"));
    let mut args = vec![
        flag("etcd-servers", "http://127.0.0.1:2379"),
        flag("secure-port", API_PORT.to_string()),
        flag("bind-address", "0.0.0.0"),
        flag("advertise-address", NODE_IP),
        flag("kubelet-client-certificate", pki("kubelet-client.crt")),
        flag("kubelet-client-key", pki("kubelet-client.key")),
        flag("kubelet-certificate-authority", pki("ca.crt")),
        flag("kubelet-preferred-address-types", "InternalIP"),
        flag("requestheader-client-ca-file", pki("ca.crt")),
        flag("requestheader-allowed-names", "front-proxy"),
        flag("requestheader-username-headers", "X-Remote-User"),
        flag("requestheader-group-headers", "X-Remote-Group"),
        flag("requestheader-extra-headers-prefix", "X-Remote-Extra-"),
        flag("proxy-client-cert-file", pki("front-proxy.crt")),
        flag("proxy-client-key-file", pki("front-proxy.key")),
        flag("authorization-mode", "Node,RBAC"),
        flag("enable-admission-plugins", "NodeRestriction"),
    ];
    args.extend(apiserver_identity(&inside("pki")));
    Component::new("kube-apiserver", args)
}

/// The flags that an API server with or without nodes needs: who it is and whom it believes.
pub fn apiserver_identity(pki: &str) -> Vec<String> {
    vec![
        flag("client-ca-file", format!("{pki}/ca.crt")),
        flag("tls-cert-file", format!("{pki}/apiserver.crt")),
        flag("tls-private-key-file", format!("{pki}/apiserver.key")),
        flag("service-account-issuer", "https://kubernetes.default.svc.cluster.local"),
        flag("service-account-key-file", format!("{pki}/sa.pub")),
        flag("service-account-signing-key-file", format!("{pki}/sa.key")),
        flag("service-cluster-ip-range", SERVICE_RANGE),
        flag("allow-privileged", "true"),
    ]
}

/// A component that is both a client and asks the API server who its own callers are.
pub fn client_flags(kubeconfig: &str) -> Vec<String> {
    ["kubeconfig", "authentication-kubeconfig", "authorization-kubeconfig"]
        .map(|name| flag(name, kubeconfig))
        .into()
}

fn kubelet_flags() -> Vec<String> {
    vec![
        flag("config", inside("kubelet.json")),
        flag("kubeconfig", inside("kubelet.kubeconfig")),
        flag("hostname-override", NODE),
        flag("node-ip", NODE_IP),
        flag("node-labels", "lethe.dev/local-cluster=true,nvidia.com/gpu.present=true"),
    ]
}

fn proxy_flags(kubeconfig: &str) -> Vec<String> {
    vec![
        flag("kubeconfig", kubeconfig),
        flag("proxy-mode", "iptables"),
        flag("cluster-cidr", POD_RANGE),
        flag("hostname-override", NODE),
        // Connection tracking limits belong to the whole machine: leave them alone.
        flag("conntrack-max-per-core", "0"),
        flag("conntrack-tcp-timeout-established", "0"),
        flag("conntrack-tcp-timeout-close-wait", "0"),
    ]
}

/// The kubelet's configuration; `cgroup` is the name of the cluster's cgroup.
pub fn kubelet(cgroup: &str) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": inside("pki/ca.crt")},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": inside("pki/kubelet-server.crt"),
        "tlsPrivateKeyFile": inside("pki/kubelet-server.key"),
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
        "failCgroupV1": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{cgroup}"),
        "enforceNodeAllocatable": ["pods"],
        "failSwapOn": false,
        // Percent, or the kubelet refuses zero: the disk is the developer's, never evict for it.
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "maxPods": 60,
        "serializeImagePulls": false,
        "nodeStatusUpdateFrequency": "5s",
        "resolvConf": inside("resolv.conf"),
        "clusterDNS": [NODE_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "volumePluginDir": VOLUME_PLUGINS,
    })
}

/// The name server's configuration: Services and pods, and a refusal for every other name.
pub fn corefile() -> String {
    let kubeconfig = inside("dns.kubeconfig");
    format!(
        ".:53 {{\n  errors\n  kubernetes {CLUSTER_DOMAIN} in-addr.arpa {{\n    kubeconfig {kubeconfig}\n    ttl 5\n  }}\n}}\n"
    )
}

/// The name server as the node and the programs that run in its namespaces ask it. Pods get theirs from the kubelet.
pub fn resolv_conf() -> String {
    format!(
        "nameserver {NODE_IP}\nsearch default.svc.{CLUSTER_DOMAIN} svc.{CLUSTER_DOMAIN} {CLUSTER_DOMAIN}\noptions ndots:5\n"
    )
}

/// The container runtime's configuration.
pub fn containerd(cni_plugins: &str) -> String {
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper"]

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE_IMAGE}"
disable_apparmor = true
# Without CAP_SYS_RESOURCE, which containers and virtual machines often lack, no sandbox starts otherwise.
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{cni_plugins}"
conf_dir = "{conf}"
"#,
        conf = inside("cni"),
    )
}

/// The pod network of the one node: a bridge with address translation.
pub fn cni() -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "lethe",
        "plugins": [
            {
                "type": "bridge",
                "bridge": "cni0",
                "isGateway": true,
                "ipMasq": true,
                "hairpinMode": true,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": NODE_POD_RANGE}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
}

/// Kernel settings that the kubelet insists on and that belong to the whole machine. Files with these values
/// are laid over the real ones, so that the kubelet is content and the machine is left alone.
pub const SYSCTLS: [(&str, &str); 6] = [
    ("vm/overcommit_memory", "1"),
    ("vm/panic_on_oom", "0"),
    ("kernel/panic", "10"),
    ("kernel/panic_on_oops", "1"),
    ("kernel/keys/root_maxkeys", "1000000"),
    ("kernel/keys/root_maxbytes", "25000000"),
];

/// `--name=value`.
pub fn flag(name: &str, value: impl AsRef<str>) -> String {
    format!("--{name}={}", value.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kubelet_stays_in_the_clusters_cgroup_and_network() {
        let config = kubelet("lethe-a");
        assert_eq!(config["cgroupRoot"], "/lethe-a");
        assert_eq!(config["address"], NODE_IP);
        for value in config["evictionHard"].as_object().unwrap().values() {
            assert_eq!(value, "0%", "a plain zero is refused by the kubelet");
        }
    }

    #[test]
    fn every_component_is_started_once_and_the_store_before_its_users() {
        let names: Vec<_> =
            first_components().into_iter().chain(second_components()).map(|c| c.name).collect();
        let mut unique = names.clone();
        unique.sort_unstable();
        unique.dedup();
        assert_eq!(unique.len(), names.len());
        assert_eq!(names[0], "etcd");
    }

    #[test]
    fn the_runtime_uses_the_image_that_is_loaded() {
        let text = containerd("/usr/lib/cni");
        assert!(text.contains(&format!("sandbox_image = \"{PAUSE_IMAGE}\"")));
        assert!(text.contains("bin_dir = \"/usr/lib/cni\""));
    }
}
