//! The OpenAPI document, made from the routes.
//!
//! Not here: the descriptions of routes (`description`), and the pages that show the document
//! (`reference`).

use std::collections::{BTreeMap, BTreeSet};

use exosphere_api_types::Problem;
use serde_json::json;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{
    AllOfBuilder, ComponentsBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, Type,
};
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    ContentBuilder, Header, HttpMethod, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Ref,
    RefOr, Required, Response, ResponseBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use exosphere_orchestrator::domain::role::{Needs, Role};

use crate::description::{Content, Description, TypeSchema};
use crate::problem_kind::Kind;
use crate::route::{QuotaClass, Requirement, Route, Verb};

/// The schemas that the document collects, by name.
type Schemas = BTreeMap<String, RefOr<Schema>>;

/// The media type of a problem document.
const PROBLEM_JSON: &str = "application/problem+json";

/// Returns the document of some routes, which are grouped by tags.
pub(crate) fn document(tagged: &[(&'static str, &'static str, Vec<Route>)]) -> OpenApi {
    let (mut paths, mut schemas) = (Paths::new(), Schemas::new());
    for (tag, _, routes) in tagged {
        for route in routes {
            let path = route.description.path.unwrap_or(route.path);
            let operation = operation(tag, path, route, &mut schemas);
            paths.add_path_operation(path, vec![method(route.verb)], operation);
        }
    }
    add(
        &mut schemas,
        TypeSchema { name: Problem::name, schema: Problem::schema, nested: Problem::schemas },
    );
    let tag = |(name, about, _): &(&'static str, &'static str, _)| {
        TagBuilder::new().name(*name).description(Some(*about)).build()
    };
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
    let components = ComponentsBuilder::new()
        .schemas_from_iter(schemas)
        .security_scheme(SECURITY_SCHEME, SecurityScheme::Http(bearer));
    let license = LicenseBuilder::new().name("Apache-2.0").identifier(Some("Apache-2.0"));
    let info = InfoBuilder::new()
        .title("Exosphere")
        .version("v1")
        .description(Some(ABOUT))
        .license(Some(license.build()));
    OpenApiBuilder::new()
        .info(info)
        .paths(paths)
        .components(Some(components.build()))
        .tags(Some(tagged.iter().map(tag).collect::<Vec<_>>()))
        .build()
}

/// The name of the security scheme in the document.
const SECURITY_SCHEME: &str = "key";

/// The description of the API.
const ABOUT: &str = "The HTTP API of an Exosphere host. Bodies are JSON in UTF-8, and no key occurs \
    twice in an object. Times are in milliseconds since 1970 (UTC). Every error is a problem \
    document (RFC 9457), whose `type` is a page of the host. `x-requires` has the least `role` of \
    the caller and the class of `quota` that the request uses; `payloads` says whether the answer \
    holds payloads: inputs, outputs, logs or the store, and `all_namespaces` whether the caller's \
    key must be valid for all namespaces. A caller who may not see payloads gets the \
    answer without those members, and `withheld` lists their names.";

/// The part of a path that names a namespace.
const NAMESPACE: &str = "{namespace}";

/// The status of an answer before the work is done.
const ACCEPTED: u16 = 202;

fn method(verb: Verb) -> HttpMethod {
    match verb {
        Verb::Get => HttpMethod::Get,
        Verb::Post => HttpMethod::Post,
        Verb::Put => HttpMethod::Put,
        Verb::Patch => HttpMethod::Patch,
        Verb::Delete => HttpMethod::Delete,
    }
}

fn operation(tag: &str, path: &str, route: &Route, schemas: &mut Schemas) -> OperationBuilder {
    let Route { description, requirement, .. } = route;
    let Requirement { needs, quota, shows_payloads, all_namespaces, in_outages: _ } = requirement;
    let is_in_namespace = path.contains(NAMESPACE);
    // One member: several would come in another order each time.
    let requires = json!({
        "role": needs.as_str(),
        "quota": quota.as_str(),
        "payloads": *shows_payloads,
        "all_namespaces": *needs != Needs::Nothing && (*all_namespaces || !is_in_namespace),
    });
    let extensions = ExtensionsBuilder::new().add("x-requires", requires);
    let mut operation = OperationBuilder::new()
        .operation_id(Some(description.id))
        .tag(tag)
        .summary(Some(description.summary))
        .parameters(Some(parameters(path, description)))
        .request_body(description.body.map(|body| request_body(body, schemas)))
        .extensions(Some(extensions.build()));
    if requirement.needs != Needs::Nothing {
        let no_scopes: [&str; 0] = [];
        operation = operation.security(SecurityRequirement::new(SECURITY_SCHEME, no_scopes));
    }
    if !description.details.is_empty() {
        operation = operation.description(Some(description.details));
    }
    for (status, content) in &description.answers {
        let mut answer = answer(*content, description.has_etag, schemas);
        if description.has_location && *status == ACCEPTED {
            let location = text_header("The path of the object, which shows its progress.");
            answer.headers.insert("Location".to_owned(), location.into());
        }
        operation = operation.response(status.to_string(), answer);
    }
    for (status, kinds) in by_status(&problems(path, description, requirement)) {
        operation = operation.response(status.to_string(), problem_response(&kinds));
    }
    operation
}

/// Returns the problems of a route: its own, and those of every route like it.
pub(crate) fn problems(
    path: &str,
    description: &Description,
    requirement: &Requirement,
) -> BTreeSet<Kind> {
    let mut problems = BTreeSet::from([Kind::BadQuery, Kind::BadHost, Kind::OtherSite, Kind::Full]);
    if path.contains('{') {
        problems.insert(Kind::BadPath);
    }
    // To a key of other namespaces, the namespace is one that does not exist.
    let is_in_namespace = path.contains(NAMESPACE);
    if is_in_namespace {
        problems.insert(Kind::NotFound);
    }
    if let Needs::Role(least) = requirement.needs {
        problems.extend([Kind::NoKey, Kind::WrongKey, Kind::TooManyRequests]);
        if least > Role::Viewer || !is_in_namespace {
            problems.insert(Kind::Forbidden);
        }
    }
    if requirement.quota != QuotaClass::Exempt {
        problems.extend([Kind::Internal, Kind::Unavailable]);
    }
    problems.extend(&description.problems);
    problems
}

fn by_status(problems: &BTreeSet<Kind>) -> BTreeMap<u16, Vec<Kind>> {
    let mut by_status = BTreeMap::<u16, Vec<Kind>>::new();
    for kind in problems {
        by_status.entry(kind.status().as_u16()).or_default().push(*kind);
    }
    by_status
}

/// Returns the parameters of an operation: those of its path, of its query, and its headers.
fn parameters(path: &str, description: &Description) -> Vec<Parameter> {
    let mut parameters: Vec<_> = path_names(path).map(path_parameter).collect();
    parameters.extend(description.query.iter().flat_map(|query| query()));
    parameters.extend(description.headers.iter().map(|header| {
        let schema = ObjectBuilder::new()
            .schema_type(Type::String)
            .pattern(Some(header.pattern))
            .max_length(Some(header.max_bytes));
        ParameterBuilder::new()
            .name(header.name)
            .parameter_in(ParameterIn::Header)
            .required(Required::False)
            .description(Some(header.about))
            .schema(Some(schema))
            .build()
    }));
    parameters
}

/// Returns the names of the parameters of a path.
pub(crate) fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split('}').next())
}

fn path_parameter(name: &str) -> Parameter {
    let text = ObjectBuilder::new().schema_type(Type::String);
    let schema: RefOr<Schema> = match name {
        "run" | "bulk" => text.format(Some(SchemaFormat::Custom("uuid".to_owned()))).into(),
        "state" => text.into(),
        "revision" => ObjectBuilder::new()
            .schema_type(Type::Integer)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
            .into(),
        "key" => text.pattern(Some("^[0-9A-Za-z]{12}$")).into(),
        "kind" => text.enum_values(Some(Kind::ALL.iter().map(|kind| kind.name()))).into(),
        _ => exosphere_api_types::Name::schema(),
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(about_path_parameter(name)))
        .schema(Some(schema))
        .build()
}

fn about_path_parameter(name: &str) -> String {
    match name {
        "run" => "The id of the run.".to_owned(),
        "bulk" => "The id of the bulk operation.".to_owned(),
        "state" => "The path of the state, as `split.count[3]`.".to_owned(),
        "revision" => "The number of the revision.".to_owned(),
        "key" => "The id of the key.".to_owned(),
        "kind" => "The kind of the problem.".to_owned(),
        "name" => "The name.".to_owned(),
        other => format!("The name of the {other}."),
    }
}

/// Adds the schema of a type, and those that it refers to, and returns a reference to it.
fn add(schemas: &mut Schemas, of: TypeSchema) -> RefOr<Schema> {
    let name = (of.name)().into_owned();
    let mut nested = Vec::new();
    (of.nested)(&mut nested);
    schemas.extend(nested);
    schemas.insert(name.clone(), (of.schema)());
    Ref::from_schema_name(name).into()
}

/// Returns the media type and the content of a body.
fn content(content: Content, schemas: &mut Schemas) -> (&'static str, ContentBuilder) {
    let content_of = |schema| ContentBuilder::new().schema(Some(schema));
    match content {
        Content::Json(of) => ("application/json", content_of(add(schemas, of))),
        Content::Object(about) => {
            let object = ObjectBuilder::new().schema_type(Type::Object).description(Some(about));
            ("application/json", content_of(object.into()))
        }
        Content::Events => {
            let text = || ObjectBuilder::new().schema_type(Type::String);
            let event = ObjectBuilder::new().schema_type(Type::Object);
            let event = event.property("id", text()).property("event", text());
            // The schema is that of one event.
            ("text/event-stream", content_of(event.property("data", text()).into()))
        }
        Content::Bytes(media_type) => {
            (media_type, content_of(ObjectBuilder::new().schema_type(Type::String).into()))
        }
    }
}

fn request_body(body: Content, schemas: &mut Schemas) -> RequestBody {
    let (media_type, content) = content(body, schemas);
    let content = content.build();
    let mut request = RequestBodyBuilder::new().required(Some(Required::True));
    if matches!(body, Content::Bytes(_)) {
        // The host does not read the type, and generic clients know only this one.
        request = request.content("application/octet-stream", content.clone());
    }
    request.content(media_type, content).build()
}

fn answer(body: Content, has_etag: bool, schemas: &mut Schemas) -> Response {
    let (media_type, content) = content(body, schemas);
    let mut response =
        ResponseBuilder::new().description("Success.").content(media_type, content.build());
    if has_etag {
        response = response.header("ETag", text_header("The version of the setting."));
    }
    response.build()
}

fn text_header(about: &str) -> Header {
    let text = ObjectBuilder::new().schema_type(Type::String);
    utoipa::openapi::HeaderBuilder::new().schema(Some(text)).description(Some(about)).build()
}

/// Returns the response of some problems with one status. Its schema admits their kinds only.
fn problem_response(kinds: &[Kind]) -> Response {
    let about: Vec<_> = kinds.iter().map(|kind| format!("`{}`", kind.name())).collect();
    let pages = kinds.iter().map(|kind| kind.page());
    let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(pages));
    let schema = AllOfBuilder::new()
        .item(Ref::from_schema_name(Problem::name()))
        .item(ObjectBuilder::new().schema_type(Type::Object).property("type", kind));
    ResponseBuilder::new()
        .description(about.join(", "))
        .content(PROBLEM_JSON, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use exosphere_orchestrator::domain::json::read_stored;
    use serde_json::Value;

    use crate::{openapi_document, route_list, routes};

    fn document() -> Value {
        read_stored(&openapi_document().to_json().unwrap()).unwrap()
    }

    /// Adds the targets of all references in a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(object) => {
                found.extend(object.get("$ref").and_then(Value::as_str));
                object.values().for_each(|value| references(value, found));
            }
            Value::Array(list) => list.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_has_its_schema() {
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > 50, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }

    #[test]
    fn every_route_is_described_once() {
        let mut ids = Vec::new();
        for (_, _, routes) in routes() {
            for route in routes {
                let description = route.description;
                let path = route.path;
                assert!(!description.id.is_empty() && !description.summary.is_empty(), "{path}");
                assert!(!description.summary.ends_with('.'), "{path}");
                assert!(!description.answers.is_empty(), "{path} has no answer");
                ids.push(description.id);
            }
        }
        let count = ids.len();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), count, "an operation id occurs twice");
        assert_eq!(count, route_list().len());
        let document = document();
        let paths = document["paths"].as_object().unwrap().values();
        let operations: usize = paths.map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(operations, count);
    }
}
