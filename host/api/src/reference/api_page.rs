//! The page of the API, made from the OpenAPI document.
//!
//! Not here: the document (`openapi`), and the frame of a page.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::{layout, text};

/// Returns the page of a document.
pub(super) fn page(document: &Value) -> Markup {
    let tags = list(&document["tags"]);
    let schemas = object(&document["components"]["schemas"]);
    let body = html! {
        p { (text(word(&document["info"]["description"]))) }
        p { "The document itself: " a href="/v1/openapi.json" { code { "/v1/openapi.json" } } }
        ul {
            @for tag in tags { li { a href={ "#" (word(&tag["name"])) } { (word(&tag["name"])) } } }
            li { a href="#types" { "Types" } }
        }
        @for tag in tags {
            h2 id=(word(&tag["name"])) { (word(&tag["name"])) }
            p { (text(word(&tag["description"]))) }
            @for (path, method, found) in operations(document) {
                @if found["tags"][0] == tag["name"] { (operation(path, method, found)) }
            }
        }
        h2 id="types" { "Types" }
        @for (name, schema) in schemas.into_iter().flatten() { (type_section(name, schema)) }
    };
    layout("HTTP API", body)
}

/// Returns the operations of a document, in the order of their paths.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    object(&document["paths"]).into_iter().flatten().flat_map(|(path, item)| {
        let methods = object(item).into_iter().flatten();
        methods.map(|(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

fn operation(path: &str, method: &str, operation: &Value) -> Markup {
    let id = word(&operation["operationId"]);
    html! {
        h3 id=(id) { (word(&operation["summary"])) }
        p.path { span.method { (method.to_uppercase()) } " " (path) }
        p.facts {
            "Role " code { (word(&operation["x-requires"]["role"])) } ", quota "
            code { (word(&operation["x-requires"]["quota"])) } ", operation " code { (id) }
            @if operation["x-requires"]["payloads"] == true { ", shows payloads" }
        }
        @if operation["description"].is_string() { p { (text(word(&operation["description"]))) } }
        @if !list(&operation["parameters"]).is_empty() {
            table {
                tr { th { "Parameter" } th { "In" } th { "Type" } th { "Meaning" } }
                @for parameter in list(&operation["parameters"]) {
                    tr {
                        td { code { (word(&parameter["name"])) } }
                        td { (word(&parameter["in"])) }
                        td { (schema_type(&parameter["schema"])) }
                        td {
                            (text(word(&parameter["description"])))
                            @if parameter["required"] == true { " Required." }
                        }
                    }
                }
            }
        }
        @for (media_type, content) in object(&operation["requestBody"]["content"]).into_iter().flatten() {
            p { "Body: " (schema_type(&content["schema"])) ", " code { (media_type) } }
        }
        (answers(&operation["responses"]))
    }
}

fn answers(responses: &Value) -> Markup {
    html! {
        table {
            tr { th { "Status" } th { "Answer" } }
            @for (status, response) in object(responses).into_iter().flatten() {
                tr {
                    td { (status) }
                    td {
                        @for (media_type, content) in object(&response["content"]).into_iter().flatten() {
                            @if media_type == "application/problem+json" {
                                (problem_links(&content["schema"]))
                            } @else {
                                (schema_type(&content["schema"])) ", " code { (media_type) }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Returns links to the pages of the problems that a schema admits.
fn problem_links(schema: &Value) -> Markup {
    let pages = list(&schema["allOf"][1]["properties"]["type"]["enum"]).iter().map(word);
    html! {
        @for page in pages { a href=(page) { code { (page.trim_start_matches("/problems/")) } } " " }
    }
}

fn type_section(name: &str, schema: &Value) -> Markup {
    // A type that contains the members of another is a list of schemas.
    let parts = match list(&schema["allOf"]) {
        [] => std::slice::from_ref(schema),
        parts => parts,
    };
    let description = parts.iter().chain([schema]).rev().map(|part| word(&part["description"]));
    html! {
        h3 id={ "schema-" (name) } { (name) }
        p { (text(description.into_iter().find(|text| !text.is_empty()).unwrap_or_default())) }
        @for part in parts {
            @if part["$ref"].is_string() { p { "The members of " (schema_type(part)) ", and:" } }
            @if let Some(members) = object(&part["properties"]) { (member_table(part, members)) }
            @if object(&part["properties"]).is_none() && !part["$ref"].is_string() {
                p { (schema_type(part)) }
            }
        }
    }
}

fn member_table(schema: &Value, members: &Map<String, Value>) -> Markup {
    let is_required = |name: &str| list(&schema["required"]).iter().any(|it| it == name);
    html! {
        table {
            tr { th { "Member" } th { "Type" } th { "Meaning" } }
            @for (name, member) in members {
                tr {
                    td { code { (name) } }
                    td { (schema_type(member)) }
                    td {
                        (text(word(&member["description"])))
                        @if is_required(name) { " Required." }
                    }
                }
            }
        }
    }
}

/// Returns a type in words, with its bounds, and a link if it has a name.
fn schema_type(schema: &Value) -> Markup {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return html! { a href={ "#schema-" (name) } { (name) } };
    }
    let choices: Vec<_> =
        ["oneOf", "anyOf", "allOf"].into_iter().flat_map(|key| list(&schema[key])).collect();
    if !choices.is_empty() {
        return html! {
            @for (place, choice) in choices.into_iter().enumerate() {
                @if place > 0 { " or " } (schema_type(choice))
            }
        };
    }
    let words: Vec<_> = match &schema["type"] {
        Value::Array(types) => types.iter().map(word).collect(),
        one => vec![word(one)],
    };
    let words = words.join(" or ");
    html! {
        @if words.is_empty() { "any JSON" } @else { (words) }
        @if schema["items"].is_object() { " of " (schema_type(&schema["items"])) }
        @if !list(&schema["enum"]).is_empty() {
            ": " @for value in list(&schema["enum"]) { code { (word(value)) } " " }
        }
        @for (key, about) in [("minimum", " from "), ("maximum", " to "), ("maxLength", ", length to ")] {
            @if schema[key].is_number() { (about) (schema[key].to_string()) }
        }
    }
}

fn object(value: &Value) -> Option<&Map<String, Value>> {
    value.as_object()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn word(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
