//! What the API server says when it refuses, in words that tell what to do.

use std::fmt::Write as _;

use crate::exit::{Exit, Trouble};

/// Why something did not happen. `action` completes "cannot ..."; `role` is the chart's role that would allow it.
pub fn of(action: &str, role: Option<&str>, error: &kube::Error) -> Trouble {
    let kube::Error::Api(status) = error else {
        return Trouble::unreachable(format!("cannot {action}: {}", causes(error)));
    };
    let said = lethe_api::printable::printable(&status.message);
    match status.code {
        401 => {
            let message = format!(
                "cannot {action}: the API server does not know who you are; log in again, or look at your kubeconfig"
            );
            Trouble::new(Exit::Refused, message)
        }
        403 if is_admission(&said) => {
            Trouble::new(Exit::Refused, format!("cannot {action}: an admission policy refused it: {said}"))
        }
        403 => {
            let ask = role.map(|role| {
                format!(
                    ". Ask whoever administers the cluster to bind the role {role} to you in this namespace"
                )
            });
            let message = format!("cannot {action}: you lack the right: {said}{}", ask.unwrap_or_default());
            Trouble::new(Exit::Refused, message)
        }
        404 if said.contains("could not find the requested resource") => Trouble::unreachable(format!(
            "cannot {action}: this cluster does not know Lethe's kinds: install charts/lethe-crds"
        )),
        404 => Trouble::unreachable(format!("cannot {action}: {said}")),
        400 | 409 | 422 => Trouble::new(Exit::Refused, format!("cannot {action}: {said}")),
        code => Trouble::unreachable(format!("cannot {action}: the API server answered {code}: {said}")),
    }
}

/// Whether a refusal is that of an admission policy or webhook, and not of a missing right.
fn is_admission(said: &str) -> bool {
    said.contains("ValidatingAdmissionPolicy") || said.contains("admission webhook")
}

/// An error with what caused it, once each.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            let _ = write!(text, ": {said}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn said(code: u16, message: &str) -> Trouble {
        let status = Status { code, message: message.into(), ..Status::default() };
        of("create it", Some("lethe-approve"), &kube::Error::Api(Box::new(status)))
    }

    #[test]
    fn a_missing_right_and_an_admission_policy_are_told_apart() {
        let right = said(403, "unlearnapprovals.lethe.dev is forbidden: User \"bob\" cannot create resource");
        assert_eq!(right.exit, Exit::Refused);
        assert!(right.message.contains("you lack the right") && right.message.contains("lethe-approve"));
        let policy = said(403, "x is forbidden: ValidatingAdmissionPolicy 'people' denied request: no");
        assert!(policy.message.contains("an admission policy refused it"), "{}", policy.message);
        assert!(!policy.message.contains("lethe-approve"), "a role would not help");
    }

    #[test]
    fn a_cluster_without_lethe_is_told_what_it_lacks() {
        let missing = said(404, "the server could not find the requested resource");
        assert_eq!(missing.exit, Exit::Unreachable);
        assert!(missing.message.contains("lethe-crds"), "{}", missing.message);
        assert_eq!(said(503, "etcd").exit, Exit::Unreachable);
    }
}
