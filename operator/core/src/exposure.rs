//! Requests that have their answer: it stands, but what was forgotten may be shown again, until it is not.

use lethe_api::v1alpha1::{ConditionType, DiffusionModel, DiffusionModelStatus, Reason, RequestPhase};

use crate::request::Answer;

impl Answer<'_> {
    /// Nothing else is looked at any more; that `suspend` was changed afterwards is seen, and means nothing.
    pub(crate) fn keep(&mut self, model: Option<&DiffusionModel>) {
        let Some(known) = model.and_then(|model| model.status.as_ref()) else { return };
        let phase = self.status.phase;
        let was_fulfilled = matches!(phase, Some(RequestPhase::Fulfilled | RequestPhase::Reexposed));
        let is_compliant = ConditionType::Compliant.is_true(&known.conditions);
        match self.shown(known) {
            Some(shown) if was_fulfilled => self.expose(&shown, known),
            None if phase == Some(RequestPhase::Reexposed) && is_compliant => self.cover(),
            _ => {}
        }
    }

    /// Those of its labels that may be shown now, in words.
    fn shown(&self, known: &DiffusionModelStatus) -> Option<String> {
        let targets = self.request.spec.targets.iter().map(|target| &target.label);
        let shown = targets.filter(|label| known.exposed.contains(label));
        let shown: Vec<_> = shown.map(|label| format!("{label:?}")).collect();
        (!shown.is_empty()).then(|| shown.join(", "))
    }

    fn expose(&mut self, shown: &str, known: &DiffusionModelStatus) {
        let compliant = ConditionType::Compliant.find(&known.conditions);
        let why = compliant.map(|condition| condition.message.as_str()).unwrap_or_default();
        let message = format!("{shown} may be shown again: {why}");
        self.status.phase = Some(RequestPhase::Reexposed);
        self.conditions.no(ConditionType::Fulfilled, Reason::Reexposed, message.clone());
        self.conditions.no(ConditionType::Ready, Reason::Reexposed, message);
    }

    fn cover(&mut self) {
        let message = "what it had to forget is not shown any more";
        self.status.phase = Some(RequestPhase::Fulfilled);
        self.conditions.yes(ConditionType::Fulfilled, Reason::Fulfilled, message);
        self.conditions.yes(ConditionType::Ready, Reason::Fulfilled, message);
    }
}
