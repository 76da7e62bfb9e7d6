//! The validation rules of the definitions, which are written in CEL. Those that compare with an earlier state (`oldSelf`)
//! need one, and are left to the API server.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use cel::{Context, Program};
use serde_json::Value;

thread_local! {
    /// The same rule stands at every gate.
    static COMPILED: RefCell<HashMap<String, Option<Rc<Program>>>> = RefCell::default();
}

/// The messages of the rules that a value breaks.
pub fn broken(schema: &Value, value: &Value) -> Vec<String> {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    let rules = rules.filter_map(|rule| Some((rule["rule"].as_str()?, rule["message"].as_str()?)));
    let asked: Vec<_> = rules.filter(|(rule, _)| !rule.contains("oldSelf")).collect();
    if asked.is_empty() {
        return vec![];
    }
    let Ok(this) = cel::to_value(value) else { return vec![] };
    let mut context = Context::default();
    context.add_variable_from_value("self", this);
    asked
        .into_iter()
        .filter(|(rule, _)| !holds(rule, &context))
        .map(|(_, message)| message.to_owned())
        .collect()
}

/// A rule that cannot be asked does not hold: the API server sees it in the same way.
fn holds(rule: &str, context: &Context<'_, '_>) -> bool {
    let program = compiled(rule);
    program.is_some_and(|program| matches!(program.execute(context), Ok(cel::Value::Bool(true))))
}

fn compiled(rule: &str) -> Option<Rc<Program>> {
    COMPILED.with_borrow_mut(|known| {
        if let Some(program) = known.get(rule) {
            return program.clone();
        }
        let program = Program::compile(rule).ok().map(Rc::new);
        known.insert(rule.to_owned(), program.clone());
        program
    })
}

/// Whether a rule can be compiled, for the test that all of them can.
#[cfg(test)]
pub fn compiles(rule: &str) -> bool {
    compiled(rule).is_some()
}
