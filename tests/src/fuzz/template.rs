//! Target `template`: JSON with placeholders, as text.
//!
//! Promises: errors have a path; a template is equal after a round trip through JSON; it renders
//! with any values of its placeholders, and is a literal without any.

use anyhow::{Result, ensure};
use exosphere_domain::template::{RenderError, Template, lookup_path};
use serde_json::{Value, json};

use super::{Acceptance, Mutator, Target};

/// The seeds.
pub struct Templates(Vec<Value>);

impl Templates {
    pub(super) fn new() -> Result<Templates> {
        let seeds = super::seeds("template")?;
        Ok(Templates(
            seeds.iter().map(|text| serde_json::from_slice(text)).collect::<Result<_, _>>()?,
        ))
    }
}

impl Target for Templates {
    fn input(&mut self, mutator: &mut Mutator) -> Vec<u8> {
        let mut value = mutator.pick(&self.0).clone();
        let donor = mutator.pick(&self.0);
        mutator.mutate_json(&mut value, donor);
        let mut text = value.to_string().into_bytes();
        if mutator.once_in(5) {
            mutator.mutate_bytes(&mut text, b"\"${{ a.outputs.b.0 }}\" $${{ }} ${{ store.k }}");
        }
        text
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Acceptance> {
        let Ok(value) = serde_json::from_slice::<Value>(input) else {
            return Ok(Acceptance::Rejected);
        };
        let template = match Template::parse(&value, "$") {
            Ok(template) => template,
            Err(mistakes) => {
                ensure!(!mistakes.is_empty(), "the template was rejected without a problem");
                let have_paths = mistakes.iter().all(|it| it.path.starts_with('$'));
                ensure!(have_paths, "a problem has no path: {mistakes:?}");
                return Ok(Acceptance::Rejected);
            }
        };
        let round_trip = template.to_json();
        match Template::parse(&round_trip, "$") {
            Ok(reparsed) => {
                ensure!(reparsed == template, "the template changed in a round trip: {round_trip}")
            }
            Err(mistakes) => anyhow::bail!("the stored template cannot be read: {mistakes:?}"),
        }
        let placeholders = template.placeholders().count();
        let literal = template.as_literal().cloned();
        ensure!((placeholders == 0) == literal.is_some(), "{placeholders} in {literal:?}");
        let found = json!({"a": [1, null, "${{ x.outputs.y }}"], "b": {"c": "\u{0}"}});
        let mut lookups = 0;
        let rendered = template.render(|_| {
            lookups += 1;
            let path = if lookups % 2 == 0 { "a" } else { "b" };
            Ok(lookup_path(&found, &[path.to_owned()]).cloned().unwrap_or_default())
        });
        let rendered = rendered?;
        ensure!(lookups == placeholders, "{lookups} of {placeholders} placeholders were rendered");
        ensure!(
            literal.is_none_or(|literal| literal == rendered),
            "a literal was rendered as {rendered}"
        );
        let fails = template.render(|placeholder| Err(RenderError::new(placeholder, "so")));
        ensure!(fails.is_err() == (placeholders > 0), "an error is lost");
        Ok(Acceptance::Accepted)
    }
}
