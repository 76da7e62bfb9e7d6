//! Legal terms.

use jiff::{Span, Timestamp, ToSpan, tz::TimeZone};
use lethe_api::v1alpha1::{DataSubjectRequest, Regulation};

/// When the legal term begins. Nothing is entered before it is received: where the stated time of receipt is later than the
/// object's creation, the creation counts.
pub fn begins_at(request: &DataSubjectRequest, created: Option<Timestamp>) -> Timestamp {
    let stated = request.received_at.0;
    created.map_or(stated, |created| created.min(stated))
}

/// The end of the legal term, counted in UTC from [`begins_at`]. `None` beyond the calendar's end.
///
/// GDPR: one calendar month, three if it is extended (Article 12(3)); a day that the last month lacks becomes its last day.
/// CCPA: 45 calendar days, 90 if it is extended (11 CCR 7021).
pub fn due_at(request: &DataSubjectRequest, created: Option<Timestamp>) -> Option<Timestamp> {
    let (first, extended) = match request.regulation {
        Regulation::Gdpr => (1.month(), 3.months()),
        Regulation::Ccpa => (45.days(), 90.days()),
    };
    let first = after(request, created, first)?;
    match &request.extension {
        Some(extension) if extension.informed_at.0 <= first => after(request, created, extended),
        _ => Some(first),
    }
}

fn after(request: &DataSubjectRequest, created: Option<Timestamp>, term: Span) -> Option<Timestamp> {
    let received = begins_at(request, created).to_zoned(TimeZone::UTC);
    received.checked_add(term).ok().map(|due| due.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use lethe_api::v1alpha1::Extension;

    fn request(received: &str, regulation: Regulation) -> DataSubjectRequest {
        let received_at = Time(received.parse().unwrap());
        DataSubjectRequest { reference: "R".into(), received_at, regulation, extension: None }
    }

    fn due(received: &str, regulation: Regulation) -> String {
        due_at(&request(received, regulation), None).unwrap().to_string()
    }

    #[test]
    fn a_gdpr_term_is_a_calendar_month() {
        assert_eq!(due("2026-11-20T09:00:00Z", Regulation::Gdpr), "2026-12-20T09:00:00Z");
        assert_eq!(due("2027-01-31T09:00:00Z", Regulation::Gdpr), "2027-02-28T09:00:00Z");
        assert_eq!(due("2028-01-31T09:00:00Z", Regulation::Gdpr), "2028-02-29T09:00:00Z");
    }

    #[test]
    fn a_ccpa_term_is_forty_five_days() {
        assert_eq!(due("2026-11-20T09:00:00Z", Regulation::Ccpa), "2027-01-04T09:00:00Z");
    }

    #[test]
    fn an_extended_term_counts_from_the_same_day_if_the_person_was_told_in_the_first() {
        let due = |regulation, informed: &str| {
            let informed_at = Time(informed.parse().unwrap());
            let extension = Some(Extension { informed_at, reason: "the model is trained anew".into() });
            let request = DataSubjectRequest { extension, ..request("2026-11-30T09:00:00Z", regulation) };
            due_at(&request, None).unwrap().to_string()
        };
        assert_eq!(due(Regulation::Gdpr, "2026-12-30T09:00:00Z"), "2027-02-28T09:00:00Z");
        assert_eq!(due(Regulation::Gdpr, "2026-12-30T09:00:01Z"), "2026-12-30T09:00:00Z");
        assert_eq!(due(Regulation::Ccpa, "2027-01-14T09:00:00Z"), "2027-02-28T09:00:00Z");
        assert_eq!(due(Regulation::Ccpa, "2027-01-15T09:00:00Z"), "2027-01-14T09:00:00Z");
    }

    #[test]
    fn no_term_begins_after_the_request_was_entered() {
        let created = Some("2026-11-24T12:00:00Z".parse().unwrap());
        let due = |received| due_at(&request(received, Regulation::Gdpr), created).unwrap().to_string();
        assert_eq!(due("2026-11-20T09:00:00Z"), "2026-12-20T09:00:00Z");
        assert_eq!(due("2062-11-20T09:00:00Z"), "2026-12-24T12:00:00Z", "a slip of the pen");
    }
}
