//! What can go wrong between a decision and the cluster.

use std::time::Duration;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an object could not be worked on. It is tried again in every case.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot {action}: {source}")]
    Api { action: String, source: kube::Error },
    #[error("cannot {action}: the API server did not answer within {seconds} s")]
    Timeout { action: String, seconds: u64 },
    #[error("did not {action}: this replica does not hold the lease")]
    NotLeader { action: String },
    /// Something of that name exists, but it is not what would have been created.
    #[error("cannot create {kind} {name}: another one is there, of another owner or content; delete it")]
    Foreign { kind: String, name: String },
    /// It is of an earlier object of the same name, and the garbage collector is about to take it.
    #[error("cannot create {kind} {name} yet: an earlier one is still being removed")]
    Leftover { kind: String, name: String },
    /// It may not be done before the audit log says that it will be.
    #[error("did not {action}: the audit log cannot be written: {why}")]
    Unlogged { action: String, why: String },
    /// What was decided about is not what is in the cluster any more.
    #[error("{what} changed since it was observed")]
    Stale { what: String },
}

/// The kinds of errors that are told apart in metrics. A closed set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// Somebody else was faster: look again.
    Conflict,
    /// The API server is overloaded (429).
    Throttled,
    /// The API server failed or could not be reached (5xx, connection).
    Unavailable,
    /// An admission webhook of somebody else did not answer the API server.
    Webhook,
    Timeout,
    /// The operator lacks a right (401, 403).
    Forbidden,
    NotFound,
    /// The API server or an admission webhook refused the object (400, 422).
    Invalid,
    /// An object or an answer that is not of its schema.
    Malformed,
    /// Something else has the name that is needed.
    Foreign,
    NotLeader,
    /// The audit log cannot be written.
    Unlogged,
}

impl Category {
    pub const ALL: [Category; 12] = [
        Category::Conflict,
        Category::Throttled,
        Category::Unavailable,
        Category::Webhook,
        Category::Timeout,
        Category::Forbidden,
        Category::NotFound,
        Category::Invalid,
        Category::Malformed,
        Category::Foreign,
        Category::NotLeader,
        Category::Unlogged,
    ];

    /// The value of the metric label `category`.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Conflict => "conflict",
            Category::Throttled => "throttled",
            Category::Unavailable => "unavailable",
            Category::Webhook => "webhook",
            Category::Timeout => "timeout",
            Category::Forbidden => "forbidden",
            Category::NotFound => "not-found",
            Category::Invalid => "invalid",
            Category::Malformed => "malformed",
            Category::Foreign => "foreign",
            Category::NotLeader => "not-leader",
            Category::Unlogged => "unlogged",
        }
    }

    /// Whether trying again helps only once somebody has done something about it.
    pub fn waits_for_people(self) -> bool {
        use Category::{Forbidden, Foreign, Invalid, Malformed, Webhook};
        matches!(self, Forbidden | Invalid | Malformed | Foreign | Webhook)
    }
}

impl Error {
    pub fn category(&self) -> Category {
        match self {
            Error::Api { source, .. } => category_of(source),
            Error::Timeout { .. } => Category::Timeout,
            Error::NotLeader { .. } => Category::NotLeader,
            Error::Unlogged { .. } => Category::Unlogged,
            Error::Foreign { .. } => Category::Foreign,
            Error::Stale { .. } | Error::Leftover { .. } => Category::Conflict,
        }
    }
}

fn category_of(error: &kube::Error) -> Category {
    match error {
        kube::Error::Api(status) => match status.code {
            401 | 403 => Category::Forbidden,
            404 => Category::NotFound,
            409 => Category::Conflict,
            429 => Category::Throttled,
            // Words of the API server's own, for want of a reason.
            500 if status.message.contains("failed calling webhook") => Category::Webhook,
            code if code >= 500 => Category::Unavailable,
            _ => Category::Invalid,
        },
        kube::Error::SerdeError(_) | kube::Error::FromUtf8(_) => Category::Malformed,
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => Category::Invalid,
        _ => Category::Unavailable,
    }
}

/// How long to wait after the `failures`-th failure in a row: doubling, so that a struggling API server
/// is left alone, from a delay that fits the cause.
pub fn backoff(category: Category, failures: u32) -> Duration {
    let (first, longest) = match category {
        Category::Conflict => (100, 10_000),
        Category::Throttled => (2_000, 120_000),
        Category::Unavailable | Category::Timeout => (1_000, 60_000),
        _ if category.waits_for_people() => (2_000, 60_000),
        _ => (1_000, 30_000),
    };
    let doubled = 1_u64.checked_shl(failures.saturating_sub(1).min(20)).unwrap_or(u64::MAX);
    Duration::from_millis((first * doubled).min(longest))
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn answered(code: u16) -> Error {
        let status = Status { code, ..Status::default() };
        Error::Api { action: "patch".into(), source: kube::Error::Api(Box::new(status)) }
    }

    #[test]
    fn every_answer_of_the_api_server_has_a_category() {
        let expected = [
            (400, Category::Invalid),
            (401, Category::Forbidden),
            (403, Category::Forbidden),
            (404, Category::NotFound),
            (409, Category::Conflict),
            (422, Category::Invalid),
            (429, Category::Throttled),
            (500, Category::Unavailable),
            (503, Category::Unavailable),
            (504, Category::Unavailable),
        ];
        for (code, category) in expected {
            assert_eq!(answered(code).category(), category, "{code}");
        }
        let message =
            "Internal error occurred: failed calling webhook \"mjob.kb.io\": connection refused".into();
        let status = Status { code: 500, message, ..Status::default() };
        let error = Error::Api { action: "create".into(), source: kube::Error::Api(Box::new(status)) };
        assert_eq!(error.category(), Category::Webhook);
        assert!(Category::Webhook.waits_for_people());
    }

    #[test]
    fn waiting_doubles_up_to_a_limit() {
        let waits: Vec<_> =
            [1, 2, 3, 7, 40].map(|n| backoff(Category::Unavailable, n).as_secs()).into_iter().collect();
        assert_eq!(waits, [1, 2, 4, 60, 60]);
        assert!(backoff(Category::Throttled, 1) > backoff(Category::Unavailable, 1));
    }
}
