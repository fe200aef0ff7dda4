//! Target `template`: JSON with placeholders, as text.
//!
//! Promises: errors have a place; a template is the same after being kept as JSON; it renders with
//! any values of its placeholders, and is a literal without any.

use anyhow::{Result, ensure};
use exosphere_domain::template::{RenderError, Template, lookup_path};
use serde_json::{Value, json};

use super::{Chance, Outcome, Target};

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
    fn input(&mut self, chance: &mut Chance) -> Vec<u8> {
        let mut value = chance.one(&self.0).clone();
        let elsewhere = chance.one(&self.0);
        chance.change(&mut value, elsewhere);
        let mut text = value.to_string().into_bytes();
        if chance.once_in(5) {
            chance.damage(&mut text, b"\"${{ a.outputs.b.0 }}\" $${{ }} ${{ store.k }}");
        }
        text
    }

    fn attempt(&mut self, input: &[u8]) -> Result<Outcome> {
        let Ok(value) = serde_json::from_slice::<Value>(input) else {
            return Ok(Outcome::Refused);
        };
        let template = match Template::parse(&value, "$") {
            Ok(template) => template,
            Err(mistakes) => {
                ensure!(!mistakes.is_empty(), "it is refused without a mistake");
                let placed = mistakes.iter().all(|it| it.path.starts_with('$'));
                ensure!(placed, "a mistake has no place: {mistakes:?}");
                return Ok(Outcome::Refused);
            }
        };
        let kept = template.to_json();
        match Template::parse(&kept, "$") {
            Ok(again) => ensure!(again == template, "it is another after being kept: {kept}"),
            Err(mistakes) => anyhow::bail!("it cannot be read after being kept: {mistakes:?}"),
        }
        let placeholders = template.placeholders().count();
        let literal = template.as_literal().cloned();
        ensure!((placeholders == 0) == literal.is_some(), "{placeholders} in {literal:?}");
        let found = json!({"a": [1, null, "${{ x.outputs.y }}"], "b": {"c": "\u{0}"}});
        let mut asked = 0;
        let rendered = template.render(|_| {
            asked += 1;
            let path = if asked % 2 == 0 { "a" } else { "b" };
            Ok(lookup_path(&found, &[path.to_owned()]).cloned().unwrap_or_default())
        });
        let rendered = rendered?;
        ensure!(asked == placeholders, "{asked} of {placeholders} placeholders were asked for");
        ensure!(literal.is_none_or(|literal| literal == rendered), "a literal becomes {rendered}");
        let fails = template.render(|placeholder| Err(RenderError::new(placeholder, "so")));
        ensure!(fails.is_err() == (placeholders > 0), "an error is lost");
        Ok(Outcome::Taken)
    }
}
