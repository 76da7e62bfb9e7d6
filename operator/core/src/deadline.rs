//! Legal terms.

use jiff::{Timestamp, ToSpan, tz::TimeZone};
use lethe_api::v1alpha1::{DataSubjectRequest, Regulation};

/// The end of the legal term, counted from receipt in UTC. `None` beyond the calendar's end.
///
/// GDPR: one calendar month (Article 12(3)); a day that the next month lacks becomes its last day.
/// CCPA: 45 calendar days (11 CCR 7021).
pub fn due_at(request: &DataSubjectRequest) -> Option<Timestamp> {
    let received = request.received_at.0.to_zoned(TimeZone::UTC);
    let term = match request.regulation {
        Regulation::Gdpr => 1.month(),
        Regulation::Ccpa => 45.days(),
    };
    received.checked_add(term).ok().map(|due| due.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    fn due(received: &str, regulation: Regulation) -> String {
        let received_at = Time(received.parse().unwrap());
        due_at(&DataSubjectRequest { reference: "R".into(), received_at, regulation }).unwrap().to_string()
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
}
