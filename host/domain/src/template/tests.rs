//! Tests of templates, by tables and by properties.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(value: Value) -> Result<Template, Vec<TemplateError>> {
    Template::parse(&value, "$")
}

/// Looks up a number, an object, a string and the list of branches.
fn lookup(placeholder: &Placeholder) -> Result<Value, RenderError> {
    let known = json!({"n": 7, "o": {"deep": [1, {"x": "y"}]}, "s": "text"});
    match placeholder {
        Placeholder::Output { path, .. } => lookup_path(&known, path)
            .cloned()
            .ok_or_else(|| RenderError::new(placeholder, "no such field")),
        Placeholder::Store { key } => Ok(json!(format!("<{key}>"))),
        Placeholder::Branches { path } => Ok(json!(path)),
    }
}

#[test]
fn templates_render_their_placeholders() {
    let table = [
        (json!("plain $ {{ }} text"), json!("plain $ {{ }} text")),
        (json!("${{ a.outputs.n }}"), json!(7)),
        (json!("${{a.outputs.n}}"), json!(7)),
        (json!("${{ a.outputs.o }}"), json!({"deep": [1, {"x": "y"}]})),
        (json!("${{ a.outputs.o.deep.1.x }}"), json!("y")),
        (
            json!("n=${{ a.outputs.n }}, o=${{ a.outputs.o.deep }}"),
            json!("n=7, o=[1,{\"x\":\"y\"}]"),
        ),
        (json!("${{ a.outputs.s }}${{ store.k }}"), json!("text<k>")),
        (json!(" ${{ a.outputs.n }}"), json!(" 7")),
        (json!("$${{ a.outputs.n }}"), json!("${{ a.outputs.n }}")),
        (json!("$$${{"), json!("$${{")),
        (json!("${{ unite.branches }}"), json!([])),
        (json!("${{ unite.branches.0.status }}"), json!(["0", "status"])),
        (json!({"l": [1, null, {"k": "${{ store.k }}"}]}), json!({"l": [1, null, {"k": "<k>"}]})),
    ];
    for (template, rendered) in table {
        let parsed = parse(template.clone()).unwrap();
        assert_eq!(parsed.render(lookup).unwrap(), rendered, "{template}");
        assert_eq!(parse(parsed.to_json()).unwrap(), parsed, "{template}");
    }
}

#[test]
fn render_errors_name_the_placeholder() {
    let error = parse(json!("${{ a.outputs.n.below }}")).unwrap().render(lookup).unwrap_err();
    assert_eq!(error.to_string(), "${{ a.outputs.n.below }} has no value: no such field");
}

#[test]
fn parse_errors_name_the_mistake() {
    let table = [
        (
            "ab ${{ x",
            "the placeholder at character 4 is not closed; end it with \"}}\", or write \"$${{\" for the text \"${{\"",
        ),
        (
            "${{ }}",
            "the placeholder at character 1: it is empty; write for example ${{ identifier.outputs.field }}",
        ),
        (
            "${{ a b.outputs.x }}",
            "the placeholder at character 1: \"a b\" cannot be the identifier of a node; write \
             ${{ identifier.outputs.field }}, ${{ store.key }} or ${{ unite.branches }}",
        ),
        (
            "${{ a.outputs. }}",
            "the placeholder at character 1: \"a.outputs.\" has an empty field between its dots",
        ),
        (
            "${{ a.output.x }}",
            "the placeholder at character 1: after the identifier comes \".outputs.\" and a \
             field, as in ${{ a.outputs.field }}, but \"output\" was found",
        ),
        (
            "é ${{ stor.key }}",
            "the placeholder at character 3: after the identifier comes \".outputs.\" and a \
             field, as in ${{ stor.outputs.field }}, but \"key\" was found; or did you mean \
             \"store\"?",
        ),
        (
            "${{ a.outputs..x }}",
            "the placeholder at character 1: \"a.outputs..x\" has an empty field between its dots",
        ),
        ("${{ store }}", "the placeholder at character 1: name a key: ${{ store.key }}"),
        (
            "${{ store.a.b }}",
            "the placeholder at character 1: store values are strings; nothing lies below a key",
        ),
        (
            "${{ unite.x }}",
            "the placeholder at character 1: the one thing to be had from \"unite\" is ${{ unite.branches }}",
        ),
        (
            "${{ a.outputs.${{ b }} }}",
            "the placeholder at character 1: \"${{ b\" cannot be a field",
        ),
    ];
    for (template, message) in table {
        let errors = parse(json!({"k": [template]})).unwrap_err();
        let expected = TemplateError { path: "$.k[0]".to_owned(), message: message.to_owned() };
        assert_eq!(errors, [expected], "{template}");
    }
    let errors = parse(json!({"${{ store.k }}": 1, "b": "${{", "c": "${{"})).unwrap_err();
    assert_eq!(errors.len(), 3);
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    assert_eq!(parse(deep).unwrap_err()[0].message, "this is nested more than 64 levels deep");
}

proptest! {
    #[test]
    fn a_written_template_parses_again(
        texts in proptest::collection::vec(
            "(\\$|\\{\\{|\\}\\}|\\$\\{\\{ |a\\.outputs\\.b| \\}\\}|store\\.k|é)*",
            1..4,
        ),
    ) {
        if let Ok(template) = parse(json!(texts)) {
            prop_assert_eq!(parse(template.to_json()), Ok(template.clone()));
            let lookup = |placeholder: &Placeholder| Ok(json!(placeholder.to_string()));
            prop_assert!(template.render(lookup).is_ok());
        }
    }

    #[test]
    fn text_without_placeholders_stays(text in "[^$]*") {
        let template = parse(json!(text)).unwrap();
        prop_assert_eq!(template.as_literal(), Some(&json!(text)));
    }
}
