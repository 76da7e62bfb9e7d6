//! Legal terms.

use jiff::{Span, Timestamp, ToSpan, tz::TimeZone};
use lethe_api::v1alpha1::{DataSubjectRequest, LegalTerm, Term};

/// How long a person who asks under one regulation may be kept waiting, and where that is counted.
#[derive(Clone, Debug)]
pub struct Terms {
    first: Span,
    extended: Option<Span>,
    zone: TimeZone,
}

impl Terms {
    /// Those of a regulation: what the policy says of it, or else what is known.
    ///
    /// GDPR: one calendar month, three if it is extended (Article 12(3)). CCPA: 45 calendar days, 90 if it is extended (11 CCR
    /// 7021). Both in UTC, unless a policy says otherwise.
    ///
    /// # Errors
    /// If neither knows it, or the policy names a time zone that there is not.
    pub fn of(regulation: &str, policy: &[LegalTerm]) -> Result<Self, String> {
        if let Some(term) = policy.iter().find(|term| term.regulation == regulation) {
            let zone = match &term.time_zone {
                None => TimeZone::UTC,
                Some(name) => TimeZone::get(name).map_err(|_| {
                    format!("legalTerms of its policy count {regulation} in {name:?}, which is no time zone")
                })?,
            };
            return Ok(Self { first: span(term.term), extended: term.extended.map(span), zone });
        }
        let (first, extended) = match regulation {
            "GDPR" => (1.month(), 3.months()),
            "CCPA" => (45.days(), 90.days()),
            _ => {
                return Err(format!(
                    "nothing says how long the term of {regulation:?} is: add it to spec.legalTerms of the model's policy"
                ));
            }
        };
        Ok(Self { first, extended: Some(extended), zone: TimeZone::UTC })
    }

    pub fn can_be_extended(&self) -> bool {
        self.extended.is_some()
    }

    fn after(&self, begins: Timestamp, term: Span) -> Option<Timestamp> {
        begins.to_zoned(self.zone.clone()).checked_add(term).ok().map(|due| due.timestamp())
    }
}

fn span(term: Term) -> Span {
    Span::new().months(term.months.unwrap_or_default()).days(term.days.unwrap_or_default())
}

/// When the legal term begins. Nothing is entered before it is received: where the stated time of receipt is later than the
/// object's creation, the creation counts.
pub fn begins_at(request: &DataSubjectRequest, created: Option<Timestamp>) -> Timestamp {
    let stated = request.received_at.0;
    created.map_or(stated, |created| created.min(stated))
}

/// The end of the legal term, counted from [`begins_at`]. `None` beyond the calendar's end.
pub fn due_at(request: &DataSubjectRequest, created: Option<Timestamp>, terms: &Terms) -> Option<Timestamp> {
    let begins = begins_at(request, created);
    let first = terms.after(begins, terms.first)?;
    match (&request.extension, terms.extended) {
        (Some(extension), Some(extended)) if extension.informed_at.0 <= first => {
            terms.after(begins, extended)
        }
        _ => Some(first),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use lethe_api::v1alpha1::Extension;

    fn request(received: &str, regulation: &str) -> DataSubjectRequest {
        let received_at = Time(received.parse().unwrap());
        DataSubjectRequest {
            reference: "R".into(),
            received_at,
            regulation: regulation.into(),
            extension: None,
        }
    }

    fn known(regulation: &str) -> Terms {
        Terms::of(regulation, &[]).unwrap()
    }

    fn due(received: &str, regulation: &str) -> String {
        due_at(&request(received, regulation), None, &known(regulation)).unwrap().to_string()
    }

    #[test]
    fn a_gdpr_term_is_a_calendar_month() {
        assert_eq!(due("2026-11-20T09:00:00Z", "GDPR"), "2026-12-20T09:00:00Z");
        assert_eq!(due("2027-01-31T09:00:00Z", "GDPR"), "2027-02-28T09:00:00Z");
        assert_eq!(due("2028-01-31T09:00:00Z", "GDPR"), "2028-02-29T09:00:00Z");
    }

    #[test]
    fn a_ccpa_term_is_forty_five_days() {
        assert_eq!(due("2026-11-20T09:00:00Z", "CCPA"), "2027-01-04T09:00:00Z");
    }

    #[test]
    fn an_extended_term_counts_from_the_same_day_if_the_person_was_told_in_the_first() {
        let due = |regulation, informed: &str| {
            let informed_at = Time(informed.parse().unwrap());
            let extension = Some(Extension { informed_at, reason: "the model is trained anew".into() });
            let request = DataSubjectRequest { extension, ..request("2026-11-30T09:00:00Z", regulation) };
            due_at(&request, None, &known(regulation)).unwrap().to_string()
        };
        assert_eq!(due("GDPR", "2026-12-30T09:00:00Z"), "2027-02-28T09:00:00Z");
        assert_eq!(due("GDPR", "2026-12-30T09:00:01Z"), "2026-12-30T09:00:00Z");
        assert_eq!(due("CCPA", "2027-01-14T09:00:00Z"), "2027-02-28T09:00:00Z");
        assert_eq!(due("CCPA", "2027-01-15T09:00:00Z"), "2027-01-14T09:00:00Z");
    }

    #[test]
    fn no_term_begins_after_the_request_was_entered() {
        let created = Some("2026-11-24T12:00:00Z".parse().unwrap());
        let due = |received| due_at(&request(received, "GDPR"), created, &known("GDPR")).unwrap().to_string();
        assert_eq!(due("2026-11-20T09:00:00Z"), "2026-12-20T09:00:00Z");
        assert_eq!(due("2062-11-20T09:00:00Z"), "2026-12-24T12:00:00Z", "a slip of the pen");
    }

    fn policy(terms: serde_json::Value) -> Vec<LegalTerm> {
        serde_json::from_value(terms).unwrap()
    }

    #[test]
    fn a_policy_adds_terms_and_replaces_known_ones() {
        let policy = policy(serde_json::json!([
            {"regulation": "LGPD", "term": {"days": 15}},
            {"regulation": "GDPR", "term": {"days": 20}, "extended": {"months": 2}},
        ]));
        let due = |regulation: &str| {
            let extension = Some(Extension {
                informed_at: Time("2026-11-21T09:00:00Z".parse().unwrap()),
                reason: "why".into(),
            });
            let request = DataSubjectRequest { extension, ..request("2026-11-20T09:00:00Z", regulation) };
            due_at(&request, None, &Terms::of(regulation, &policy).unwrap()).unwrap().to_string()
        };
        assert_eq!(due("LGPD"), "2026-12-05T09:00:00Z", "it knows no extension");
        assert_eq!(due("GDPR"), "2027-01-20T09:00:00Z");
        assert_eq!(due("CCPA"), "2027-02-18T09:00:00Z", "as ever");
    }

    #[test]
    fn months_are_those_of_the_place() {
        // The last of February in New York, the first of March in Greenwich.
        let received = "2027-03-01T00:30:00Z";
        let there = policy(serde_json::json!([
            {"regulation": "GDPR", "term": {"months": 1}, "timeZone": "America/New_York"}
        ]));
        let there = Terms::of("GDPR", &there).unwrap();
        let due = due_at(&request(received, "GDPR"), None, &there).unwrap().to_string();
        assert_eq!(due, "2027-03-28T23:30:00Z", "19:30, in summer time by then");
        assert_eq!(super::tests::due(received, "GDPR"), "2027-04-01T00:30:00Z");
    }

    #[test]
    fn a_regulation_that_nobody_knows_has_no_term_and_neither_has_a_place_that_there_is_not() {
        let error = Terms::of("DPDP", &[]).unwrap_err();
        assert!(error.contains("DPDP") && error.contains("spec.legalTerms"), "{error}");
        let nowhere = policy(serde_json::json!([
            {"regulation": "DPDP", "term": {"days": 30}, "timeZone": "Asia/Nowhere"}
        ]));
        assert!(Terms::of("DPDP", &nowhere).unwrap_err().contains("Asia/Nowhere"));
    }
}
