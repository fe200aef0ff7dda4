//! Rules for manifests: every dependency is used, and the Rust version is the one that is
//! built and tested.

use std::path::Path;

use super::File;

/// Crates whose derives make code that names them, and the derives.
const DERIVES: [(&str, [&str; 2]); 1] = [("serde", ["Serialize", "Deserialize"])];

/// Finds dependencies that a manifest declares and that nothing uses.
pub fn unused(manifest: &File, files: &[File]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (line, section, name) in dependencies(&manifest.text) {
        let is_used = if section == "workspace.dependencies" {
            members(manifest, files).any(|member| declares(&member.text, name))
        } else {
            sources(manifest, files).any(|source| uses(&source.text, name))
        };
        if !is_used {
            let breach = format!("the dependency {name} is declared and not used");
            breaches.push(manifest.breach(line, &breach));
        }
    }
    breaches
}

/// Finds versions of Rust, in manifests and documents, that are not the pinned one.
pub fn other_versions(files: &[File]) -> Vec<String> {
    let pinned = files.iter().find(|file| file.name == Path::new("rust-toolchain.toml"));
    let channel = pinned.and_then(|file| value(&file.text, "channel")).unwrap_or_default();
    let minor: Vec<&str> = channel.split('.').take(2).collect();
    let minor = minor.join(".");
    let mut breaches = Vec::new();
    for file in files {
        for (number, line) in file.lines() {
            let version = if file.name.ends_with("Cargo.toml") {
                value(line, "rust-version")
            } else if file.has_extension("md") {
                named_version(line)
            } else {
                None
            };
            if let Some(version) = version.filter(|version| *version != minor) {
                let breach = format!("Rust {version} is not tested; the toolchain is {channel}");
                breaches.push(file.breach(number, &breach));
            }
        }
    }
    breaches
}

/// Returns the dependencies of a manifest: the line, the section and the name.
fn dependencies(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    let mut section = "";
    text.lines().enumerate().filter_map(move |(number, line)| {
        if let Some(title) = line.strip_prefix('[') {
            section = title.trim_end().trim_end_matches(']');
            return None;
        }
        let name = line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty())?;
        let is_entry = line.contains('=') && line.starts_with(|it: char| it.is_alphabetic());
        (is_entry && section.ends_with("dependencies")).then_some((number, section, name))
    })
}

fn declares(text: &str, name: &str) -> bool {
    dependencies(text).any(|(_, _, declared)| declared == name)
}

/// Returns the manifests of a workspace's members.
fn members<'a>(workspace: &'a File, files: &'a [File]) -> impl Iterator<Item = &'a File> {
    let is_workspace = |file: &File| file.text.contains("[workspace]");
    let nearest = move |file: &File| {
        let folders = file.name.ancestors().skip(1);
        let mut manifests = folders.map(|folder| folder.join("Cargo.toml"));
        manifests.find(|name| files.iter().any(|it| it.name == *name && is_workspace(it)))
    };
    files.iter().filter(move |file| {
        file.name.ends_with("Cargo.toml")
            && file.name != workspace.name
            && nearest(file).as_ref() == Some(&workspace.name)
    })
}

/// Returns the sources of a package, without those of packages in its folders.
fn sources<'a>(manifest: &'a File, files: &'a [File]) -> impl Iterator<Item = &'a File> {
    let package = |file: &File| {
        let folders = file.name.ancestors().skip(1);
        let mut manifests = folders.map(|folder| folder.join("Cargo.toml"));
        manifests.find(|name| files.iter().any(|it| it.name == *name))
    };
    files.iter().filter(move |file| {
        file.has_extension("rs") && package(file).as_ref() == Some(&manifest.name)
    })
}

/// Returns whether a source names a crate in a path, or derives by it.
fn uses(text: &str, name: &str) -> bool {
    let name = name.replace('-', "_");
    let derives = DERIVES.iter().filter(|(derived, _)| *derived == name);
    let derives: Vec<&str> = derives.flat_map(|(_, words)| *words).collect();
    let mut code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.any(|line| {
        let is_import = line.trim_start().starts_with("use ");
        let is_path = line.match_indices(&name).any(|(start, _)| {
            let before = line[..start].chars().next_back();
            let after = &line[start + name.len()..];
            let is_whole = !before.is_some_and(|it| it.is_alphanumeric() || it == '_');
            let ends = after.starts_with([';', ' ', ',', '}']);
            is_whole && (after.starts_with("::") || is_import && ends)
        });
        is_path || derives.iter().any(|word| line.contains(word))
    })
}

/// Returns the value of a key in a line of a manifest.
fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(key))?;
    line[key.len()..].trim_start().strip_prefix('=')?.split('"').nth(1)
}

/// Returns the version of Rust that a line of a document names.
fn named_version(line: &str) -> Option<&str> {
    let start = line.find("Rust 1.")? + "Rust ".len();
    let rest = &line[start..];
    let end = rest.find(|it: char| !it.is_ascii_digit() && it != '.').unwrap_or(rest.len());
    Some(rest[..end].trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::super::file;
    use super::*;

    #[test]
    fn unused_dependencies_are_found() {
        let files = [
            file("Cargo.toml", "[workspace]\n[workspace.dependencies]\nhex = \"1\"\nwat = \"1\"\n"),
            file(
                "a/Cargo.toml",
                "[dependencies]\nhex.workspace = true\nserde = \"1\"\n\n[features]\nb = []\n\
                 [dev-dependencies]\nhttp-body = { version = \"1\" }\nrand = \"1\"\n",
            ),
            file("a/src/lib.rs", "use hex;\n// rand::rng\n#[derive(Serialize)]\n"),
            file("a/tests/a.rs", "fn a() { http_body::Body; my_rand::rng() }\n"),
            file("a/b/Cargo.toml", "[package]\n"),
            file("a/b/src/lib.rs", "rand::rng();\n"),
        ];
        let found: Vec<_> = files[..2].iter().flat_map(|it| unused(it, &files)).collect();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("Cargo.toml:4: the dependency wat"), "{found:?}");
        assert!(found[1].contains("a/Cargo.toml:9: the dependency rand"), "{found:?}");
    }

    #[test]
    fn untested_rust_versions_are_found() {
        let files = [
            file("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n"),
            file("Cargo.toml", "[workspace.package]\nrust-version = \"1.94\"\n"),
            file("a/Cargo.toml", "[package]\nrust-version.workspace = true\n"),
            file("b/Cargo.toml", "[package]\nrust-version = \"1.95\"\n"),
            file("README.md", "Rust 1.95.\nRust 1.9 or later\n"),
        ];
        let found = other_versions(&files);
        assert_eq!(found.len(), 2, "{found:?}");
    }
}
