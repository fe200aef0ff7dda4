//! OpenAPI schemas of the domain's types whose JSON is not their Rust shape.
//!
//! Not here: the schemas that derives make, and the document (the API).

use std::borrow::Cow;

use utoipa::openapi::schema::{AdditionalProperties, ObjectBuilder, Schema, SchemaType, Type};
use utoipa::openapi::{KnownFormat, RefOr, SchemaFormat};
use utoipa::{PartialSchema, ToSchema};

use crate::grant::HttpRule;
use crate::ids::{Digest, MAX_NAME_BYTES, Name};
use crate::label::{Label, Labels, MAX_LABEL_KEY_BYTES, MAX_LABEL_VALUE_BYTES, MAX_LABELS};
use crate::limits::{Limit, LimitValues};
use crate::path::Path;
use crate::quota::{Quota, QuotaValues};

fn text() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(SchemaType::new(Type::String))
}

impl PartialSchema for Name {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("The name of a namespace, a plugin, a node, a graph or a secret."))
            .pattern(Some("^[A-Za-z0-9_][A-Za-z0-9_.-]*$"))
            .min_length(Some(1))
            .max_length(Some(MAX_NAME_BYTES))
            .into()
    }
}

impl ToSchema for Name {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Name")
    }
}

impl PartialSchema for Digest {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("The SHA-256 of a plugin's component."))
            .pattern(Some("^[0-9a-f]{64}$"))
            .into()
    }
}

impl ToSchema for Digest {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Digest")
    }
}

impl PartialSchema for Path {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("The path of a state: the outputs and edges from the root to it."))
            .into()
    }
}

impl ToSchema for Path {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("StatePath")
    }
}

impl PartialSchema for Label {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some("A label of a run, as `KEY:VALUE`."))
            .pattern(Some("^[A-Za-z0-9][A-Za-z0-9_./-]*:"))
            .examples(["team:search"])
            .into()
    }
}

impl ToSchema for Label {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Label")
    }
}

impl PartialSchema for Labels {
    fn schema() -> RefOr<Schema> {
        let value = text().max_length(Some(MAX_LABEL_VALUE_BYTES));
        ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("The labels of a run, by key."))
            .property_names(Some(
                text()
                    .pattern(Some("^[A-Za-z0-9][A-Za-z0-9_./-]*$"))
                    .max_length(Some(MAX_LABEL_KEY_BYTES)),
            ))
            .max_properties(Some(MAX_LABELS))
            .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
            .into()
    }
}

impl ToSchema for Labels {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Labels")
    }
}

impl PartialSchema for HttpRule {
    fn schema() -> RefOr<Schema> {
        text()
            .description(Some(
                "Allowed HTTP requests: methods, scheme, host, port and the beginning of the path.",
            ))
            .examples(["GET,POST https://api.example.com:8443/v1/"])
            .into()
    }
}

impl ToSchema for HttpRule {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("HttpRule")
    }
}

impl PartialSchema for LimitValues {
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("Limits, by name."))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        let with =
            |object: ObjectBuilder, limit: &Limit| object.property(limit.name(), value(*limit));
        Limit::ALL.iter().fold(object, with).into()
    }
}

impl PartialSchema for QuotaValues {
    fn schema() -> RefOr<Schema> {
        let object = ObjectBuilder::new()
            .schema_type(SchemaType::new(Type::Object))
            .description(Some("Quotas, by name."))
            .additional_properties(Some(AdditionalProperties::FreeForm(false)));
        let with = |object: ObjectBuilder, quota: &Quota| {
            let value = ObjectBuilder::new()
                .schema_type(SchemaType::new(Type::Integer))
                .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
                .minimum(Some(0))
                .description(Some(quota.what()));
            object.property(quota.name(), value)
        };
        Quota::ALL.iter().fold(object, with).into()
    }
}

impl ToSchema for QuotaValues {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("QuotaValues")
    }
}

impl ToSchema for LimitValues {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("LimitValues")
    }
}

/// Returns the schema of a limit's value, with its range.
fn value(limit: Limit) -> ObjectBuilder {
    let range = limit.range();
    ObjectBuilder::new()
        .schema_type(SchemaType::new(Type::Integer))
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
        .description(Some(format!("Bounds the {}.", limit.bounded())))
        .minimum(Some(*range.start() as i64))
        .maximum(Some(*range.end() as i64))
}
