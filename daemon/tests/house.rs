//! The house rules that the compiler does not check: who may depend on whom, and that nothing below the host waits.
#![allow(clippy::unwrap_used, reason = "a test that cannot read the sources fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The crates of this workspace that a manifest names in the given section.
fn own_dependencies(folder: &str, section: &str) -> BTreeSet<String> {
    let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let lines = manifest.lines().skip_while(|line| *line != format!("[{section}]")).skip(1);
    let names = lines.take_while(|line| !line.starts_with('[')).filter_map(|line| {
        let name = line.split(['.', ' ', '=']).next()?;
        name.starts_with("mesh-").then(|| name.to_owned())
    });
    names.collect()
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn crates_depend_on_those_below_them_only() {
    let below: [(&str, &[&str]); 8] = [
        ("engine/base", &[]),
        ("wire", &["mesh-base"]),
        ("raftlog", &["mesh-base"]),
        ("engine", &["mesh-base"]),
        ("wire/clients/rust", &["mesh-base", "mesh-wire"]),
        ("daemon", &["mesh-base", "mesh-client", "mesh-engine", "mesh-raftlog", "mesh-wire"]),
        ("sim", &["mesh-base", "mesh-engine", "mesh-raftlog", "mesh-server", "mesh-wire"]),
        ("bench", &["mesh-base", "mesh-engine", "mesh-raftlog", "mesh-server", "mesh-wire"]),
    ];
    for (folder, allowed) in below {
        let found = own_dependencies(folder, "dependencies");
        let allowed = names(allowed);
        assert!(found.is_subset(&allowed), "{folder} depends on {:?}", found.difference(&allowed));
    }
}

#[test]
fn only_the_host_and_the_command_line_need_an_executor() {
    for folder in ["engine/base", "wire", "raftlog", "engine", "sim"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        for name in ["glommio", "tokio", "futures"] {
            assert!(!manifest.contains(name), "{folder} names {name}");
        }
    }
    let sim = fs::read_to_string(root().join("sim/Cargo.toml")).unwrap();
    assert!(
        sim.contains("mesh-server.workspace = true"),
        "without default features, as the workspace has it"
    );
}

#[test]
fn only_a_simulator_that_asks_for_it_has_flaws() {
    for folder in ["wire", "wire/clients/rust", "raftlog", "engine", "daemon", "bench"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("flaws"), "{folder} turns on deliberate bugs");
    }
    for folder in ["engine/base", "sim"] {
        let manifest = fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
        assert!(!manifest.contains("default = "), "{folder} has flaws only where they are asked for");
    }
}

/// The lines of a source file that are neither comments nor tests.
fn code_of(file: &Path) -> Vec<(usize, String)> {
    let text = fs::read_to_string(file).unwrap();
    let code = text.lines().enumerate().take_while(|(_, line)| *line != "#[cfg(test)]");
    let code = code.filter(|(_, line)| !line.trim_start().starts_with("//"));
    code.map(|(number, line)| (number + 1, line.to_owned())).collect()
}

fn sources(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "generated", "host", "cli", "bin"].contains(&name.as_str()) {
                sources(&path, into);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            into.push(path);
        }
    }
}

#[test]
fn nothing_below_the_host_reads_a_clock_spawns_sleeps_or_draws() {
    let forbidden = [
        "Instant::now",
        "SystemTime",
        "std::thread",
        "thread::",
        "std::fs",
        "std::net",
        "async fn",
        ".await",
        "tokio",
        "glommio",
        "thread_rng",
        "rand::",
        "getrandom",
        "RandomState",
        "HashMap<",
        "HashSet<",
        "Mutex<",
        "std::env",
        "println!",
    ];
    // A hash map of a fixed hasher, never iterated, whose every use is in its own module.
    let allowed =
        ["src/table.rs", "frames/hash.rs", "frames/mod.rs", "frames/replacement.rs", "src/sealed.rs"];
    let mut files = Vec::new();
    for folder in ["engine/base/src", "wire/src", "raftlog/src", "engine/src", "daemon/src"] {
        sources(&root().join(folder), &mut files);
    }
    assert!(files.len() > 80, "the sources are where they are looked for");
    for file in files {
        let is_allowed = allowed.iter().any(|end| file.ends_with(end));
        for (number, line) in code_of(&file) {
            for word in forbidden {
                let excused = is_allowed && word.starts_with("Hash");
                assert!(excused || !line.contains(word), "{}:{number} has {word}: {line}", file.display());
            }
        }
    }
}

#[test]
fn the_top_level_holds_what_it_should_and_nothing_else() {
    let expected = names(&[
        "Cargo.toml",
        "Cargo.lock",
        "README.md",
        "LICENSE",
        "CONTRIBUTING.md",
        "deny.toml",
        "clippy.toml",
        "rustfmt.toml",
        "daemon",
        "engine",
        "raftlog",
        "wire",
        "sim",
        "bench",
        "ops",
    ]);
    let found = fs::read_dir(root()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let made = ["target", "mesh-data"];
    for name in found.filter(|name| !name.starts_with('.') && !made.contains(&name.as_str())) {
        assert!(expected.contains(&name), "{name} does not belong at the top");
    }
}
